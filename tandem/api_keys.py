"""API keys as they are made: the key for its owner, and the line with its hash that the gateway stores.

Who makes a key needs no server: nothing beyond the standard library is imported.
"""

from __future__ import annotations

import hashlib
import re
import secrets


def new_key(name: str) -> tuple[str, str]:
    """A random key, and the line for the file. The key cannot be had from the line.

    Raises ValueError for a name that the line cannot hold.
    """
    if not re.fullmatch(r"\S+", name):
        raise ValueError("a key's name has no spaces, and at least one character")
    key = f"tandem-{secrets.token_urlsafe(32)}"
    return key, f"sha256:{key_hash(key)} {name}"


def key_hash(key: str) -> str:
    """In hexadecimal digits."""
    # Keys are random and long, so that a fast hash does not help to guess them.
    return hashlib.sha256(key.encode()).hexdigest()
