"""SHA-256 of large files, remembered on disk so that a restart does not read 2 GB just to name them."""

from __future__ import annotations

import hashlib
import os
import tempfile
from pathlib import Path


def cache_directory() -> Path:
    """Where remembered hashes live: $TANDEM_CACHE, or tandem/ under the user's cache directory."""
    own = os.environ.get("TANDEM_CACHE")
    if own:
        return Path(own)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "tandem"


def file_sha256(path: Path, cache: Path | None = None) -> str:
    """Hex SHA-256, remembered by path, size and modification time.

    A cache that cannot be written costs time on the next start, nothing else.
    """
    path = path.resolve()
    stat = path.stat()
    key = hashlib.sha256(f"{path}\0{stat.st_size}\0{stat.st_mtime_ns}".encode()).hexdigest()
    entry = (cache or cache_directory()) / "sha256" / key
    try:
        known = entry.read_text(encoding="ascii")
    except OSError:
        known = ""
    if len(known) == 64:
        return known
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    _remember(entry, digest)
    return digest


def _remember(entry: Path, digest: str) -> None:
    """Atomic write, so that a reader never sees half a hash."""
    try:
        entry.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile("w", dir=entry.parent, delete=False, encoding="ascii") as file:
            file.write(digest)
        os.replace(file.name, entry)
    except OSError:
        return
