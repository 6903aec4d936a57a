"""Generates the Python stubs from protos/ into a source tree.

Run by the build (setup.py) with grpcio-tools; `make proto` adds typed service stubs for mypy.
"""

from __future__ import annotations

import argparse
import sys
from importlib import resources
from pathlib import Path

from grpc_tools import protoc

PROTO_ROOT = Path(__file__).resolve().parent


def generate(out: Path) -> list[Path]:
    """Write the `*_pb2*.py` files of every .proto below `out`; returns the .proto files."""
    sources = sorted(PROTO_ROOT.glob("tandem/**/*.proto"))
    outputs = ["python_out", "grpc_python_out"]
    command = ["protoc", f"-I{PROTO_ROOT}", f"-I{resources.files('grpc_tools') / '_proto'}"]
    command += [f"--{name}={out}" for name in outputs]
    code = protoc.main([*command, *map(str, sources)])
    if code != 0:
        raise SystemExit(f"protoc failed with exit code {code}")
    return sources


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=PROTO_ROOT.parent, help="root of the generated packages")
    sources = generate(parser.parse_args().out)
    print(f"generated stubs of {len(sources)} protos", file=sys.stderr)


if __name__ == "__main__":
    main()
