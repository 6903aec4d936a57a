"""Finds a checkpoint: a directory on this machine, or a snapshot of a hub id."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Literal

Hub = Literal["hf", "ms"]
WEIGHTS_FILE = "model.pt"
CONFIG_FILE = "config.yaml"
PACKAGES: dict[Hub, str] = {"hf": "huggingface_hub", "ms": "modelscope"}


class CheckpointError(RuntimeError):
    """The checkpoint cannot be found, read, or fitted to its own config.yaml."""


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
    try:
        return Path(client.snapshot_download(model))
    except Exception as error:  # the hubs raise dozens of types; the cause stays attached
        raise CheckpointError(f"{package} could not fetch {model}: {error}") from error
