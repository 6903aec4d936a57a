"""Finds, reads and names a published checkpoint; the encoder and the decoder tier both start here.

torch is imported only when tensors are read, so that the client installs without it.
"""

from __future__ import annotations

import hashlib
import importlib
import os
import tempfile
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from torch import Tensor

Hub = Literal["hf", "ms"]
WEIGHTS_FILE = "model.pt"
CONFIG_FILE = "config.yaml"
OFFLINE = "TANDEM_OFFLINE"
"""The variable that, set to 1, keeps to what a hub's cache holds."""
PACKAGES: dict[Hub, str] = {"hf": "huggingface_hub", "ms": "modelscope"}
WRAPPERS = ("state_dict", "model_state_dict", "model")


class CheckpointError(RuntimeError):
    """The checkpoint cannot be found, read, or fitted to its own configuration."""


def resolve_checkpoint(model: str, hub: Hub | None = None) -> Path:
    """Directory of a checkpoint: `model` itself when it is one, otherwise a snapshot of that id.

    Raises CheckpointError when nothing is there, a file is missing, or the hub or its package fails.
    """
    directory = Path(model).expanduser()
    if not directory.is_dir():
        if hub is None:
            raise CheckpointError(f"{model} is not a directory; to fetch it, name its hub (hf or ms)")
        directory = _snapshot(model, hub)
    missing = [name for name in (CONFIG_FILE, WEIGHTS_FILE) if not (directory / name).is_file()]
    if missing:
        raise CheckpointError(f"{directory} holds no {' and no '.join(missing)}")
    return directory


def _snapshot(model: str, hub: Hub) -> Path:
    package = PACKAGES[hub]
    try:
        client = importlib.import_module(package)
    except ImportError as error:
        raise CheckpointError(
            f"fetching {model} needs the package {package}: pip install {package}"
        ) from error
    # A cache that is only mounted to be read, as of the chart's pods, allows no look at the hub.
    offline = os.environ.get(OFFLINE) == "1"
    try:
        return Path(client.snapshot_download(model, local_files_only=offline))
    except Exception as error:  # the hubs raise dozens of types; the cause stays attached
        raise CheckpointError(f"{package} could not fetch {model}: {error}") from error


def read_config(directory: Path) -> dict[str, Any]:
    """The parsed config.yaml. Raises CheckpointError when it is unreadable or not a mapping."""
    import yaml

    path = directory / CONFIG_FILE
    try:
        config = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise CheckpointError(f"cannot read {path}: {error}") from error
    if not isinstance(config, dict):
        raise CheckpointError(f"{path} is not a mapping")
    return config


def read_tensors(path: Path) -> dict[str, Tensor]:
    """Name to tensor of a model.pt, memory-mapped where the format allows; nothing in it is executed."""
    import torch

    try:
        raw = torch.load(path, map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(path))
    except Exception as error:  # torch raises its own, pickle's and zip's types for a damaged or unsafe file
        raise CheckpointError(f"cannot read {path}: {error}") from error
    tensors = _unwrap(raw)
    odd = [str(name) for name, value in tensors.items() if not isinstance(value, torch.Tensor)]
    if odd or not tensors:
        raise CheckpointError(f"{path} is not a state dict; entries that are no tensors: {odd[:8]}")
    return {str(name).removeprefix("module."): value for name, value in tensors.items()}


def _unwrap(raw: Any) -> Mapping[Any, Any]:
    while isinstance(raw, Mapping):
        inner = next((raw[key] for key in WRAPPERS if isinstance(raw.get(key), Mapping)), None)
        if inner is None:
            return raw
        raw = inner
    raise CheckpointError(f"expected a state dict, found {type(raw).__name__}")


def describe_misfit(expected: Mapping[str, Tensor], found: Mapping[str, Tensor]) -> str:
    """Every missing, unexpected and misshapen tensor by name; empty when all fit."""
    misshapen = [
        f"{name} is {list(found[name].shape)}, the configuration asks for {list(value.shape)}"
        for name, value in expected.items()
        if name in found and found[name].shape != value.shape
    ]
    problems = {
        "missing": sorted(expected.keys() - found.keys()),
        "unexpected": sorted(found.keys() - expected.keys()),
        "misshapen": misshapen,
    }
    return " | ".join(f"{len(names)} {kind}: {'; '.join(names)}" for kind, names in problems.items() if names)


def cache_directory() -> Path:
    """Where derived files live: $TANDEM_CACHE, or tandem/ under the user's cache directory."""
    own = os.environ.get("TANDEM_CACHE")
    if own:
        return Path(own)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "tandem"


def file_sha256(path: Path, cache: Path | None = None) -> str:
    """Hex SHA-256, remembered by path, size and modification time so that a restart does not read 2 GB.

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
