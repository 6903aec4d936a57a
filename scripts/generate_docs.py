"""Writes docs/protocols/: the reference of the gRPC services and of the HTTP routes, from the code itself."""

from __future__ import annotations

import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from scripts.reference import openapi, protos  # noqa: E402

OUTPUT = ROOT / "docs" / "protocols"


def generate() -> dict[Path, str]:
    """Every generated file and its text."""
    pages = {**protos.pages(ROOT / "protos"), **openapi.pages()}
    return {OUTPUT / name: text for name, text in pages.items()}


def main() -> int:
    for path, text in generate().items():
        path.write_text(text, encoding="utf-8")
        print(path.relative_to(ROOT))
    return 0


if __name__ == "__main__":
    sys.exit(main())
