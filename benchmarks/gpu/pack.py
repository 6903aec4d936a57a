"""Packs what the benchmarks need on a GPU machine without a network into one folder of a few MB.

    python benchmarks/gpu/pack.py FOLDER [--also peer profiles]

Wheels are for Python 3.12 on x86-64 Linux; torch, transformers and vLLM are not among them, the machine has
them. The generated stubs and the voice detector travel with them. Copy the tracked files of the repository
too; there, `. benchmarks/gpu/install.sh FOLDER` puts everything in place.
"""

from __future__ import annotations

import argparse
import re
import shutil
import subprocess
import sys
import tarfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
GLIBC = (39, 35, 34, 31, 28, 27, 24, 17, 12, 5)
"""pip matches the platform of a wheel exactly, so every one that the machine can run is named."""


def requirements(files: list[Path]) -> list[str]:
    """Lines of requirement files, comments left out."""
    lines = (line.partition("#")[0].strip() for file in files for line in file.read_text().splitlines())
    return [line for line in lines if line]


def download(folder: Path, wanted: list[str]) -> None:
    """Wheels of exactly these packages; what has no wheel is built here where it is pure Python."""
    target = ["--only-binary=:all:", "--python-version", "3.12", "--implementation", "cp"]
    target += [flag for abi in ("cp312", "abi3", "none") for flag in ("--abi", abi)]
    platforms = [f"manylinux_2_{minor}_x86_64" for minor in GLIBC]
    platforms += ["manylinux2014_x86_64", "manylinux2010_x86_64", "manylinux1_x86_64"]
    target += [flag for platform in platforms for flag in ("--platform", platform)]
    for package in wanted:
        fetch = [sys.executable, "-m", "pip", "download", "-q", "--no-deps", "-d", str(folder), package]
        if subprocess.run([*fetch, *target], stderr=subprocess.DEVNULL).returncode:
            build = [sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "-w", str(folder), package]
            subprocess.run(build, check=True)


def is_wanted(path: Path) -> bool:
    return bool(re.search(r"_pb2(_grpc)?\.py$", path.name))


def pack_tree(archive: Path) -> None:
    """Generated stubs and the voice detector, at their places in the repository."""
    with tarfile.open(archive, "w:gz") as tar:
        stubs = [path for path in sorted((ROOT / "tandem").rglob("*.py")) if is_wanted(path)]
        if not stubs:
            raise SystemExit("generate the stubs first: make proto")
        for path in [*stubs, *sorted((ROOT / "models" / "vad").iterdir())]:
            tar.add(path.resolve(), path.relative_to(ROOT))


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path)
    here = Path(__file__).parent
    more = sorted({file.stem for file in here.glob("*.txt")} - {"wheels"})
    parser.add_argument("--also", nargs="*", default=[], choices=more, help="what single benchmarks need")
    options = parser.parse_args()
    shutil.rmtree(options.folder, ignore_errors=True)
    options.folder.mkdir(parents=True)
    download(options.folder, requirements([here / f"{name}.txt" for name in ("wheels", *options.also)]))
    pack_tree(options.folder / "tree.tgz")
    sizes = {path.name: path.stat().st_size for path in options.folder.iterdir()}
    for name, size in sorted(sizes.items(), key=lambda item: item[1]):
        print(f"{size / 2**20:7.2f} MiB  {name}")
    print(f"{sum(sizes.values()) / 2**20:7.2f} MiB in all")


if __name__ == "__main__":
    main()
