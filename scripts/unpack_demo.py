"""Unpacks models/demo/model.pt.xz: bfloat16 weights are a third smaller in git that way.

python scripts/unpack_demo.py            # model.pt.xz -> model.pt, where it is missing or older
python scripts/unpack_demo.py --pack     # model.pt -> model.pt.xz, after training
"""

from __future__ import annotations

import argparse
import lzma
import os
import shutil
from pathlib import Path

DEMO = Path(__file__).resolve().parents[1] / "models" / "demo"
# Values of two bytes: the coder keeps statistics of their low and their high bytes apart.
_FILTERS = [{"id": lzma.FILTER_LZMA2, "preset": 6, "lc": 3, "lp": 1, "pb": 1, "dict_size": 1 << 20}]


def unpack(directory: Path = DEMO) -> Path:
    """Makes sure that model.pt is what model.pt.xz holds, and returns it. Raises FileNotFoundError."""
    packed, target = directory / "model.pt.xz", directory / "model.pt"
    if not target.is_file() or target.stat().st_mtime < packed.stat().st_mtime:
        # A reader, or a second unpacking at the same time, never sees half a file.
        part = target.with_name(f".{target.name}.{os.getpid()}")
        with lzma.open(packed) as source, part.open("wb") as out:
            shutil.copyfileobj(source, out, 1 << 20)
        os.replace(part, target)
    return target


def pack(directory: Path = DEMO) -> Path:
    """Writes model.pt.xz from model.pt, and returns it."""
    source, target = directory / "model.pt", directory / "model.pt.xz"
    target.write_bytes(lzma.compress(source.read_bytes(), lzma.FORMAT_XZ, filters=_FILTERS))
    source.touch()
    return target


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--pack", action="store_true")
    parser.add_argument("--model", type=Path, default=DEMO, help="directory of the checkpoint")
    options = parser.parse_args()
    print((pack if options.pack else unpack)(options.model))


if __name__ == "__main__":
    main()
