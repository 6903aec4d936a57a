"""`tandem encode`: audio embeddings and CTC posteriors of a file, as they come over the wire, to npz."""

from __future__ import annotations

import argparse
import contextlib
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from tandem.access import Access
from tandem.cli.access import access_of, add_access_flags
from tandem.cli.models import add_model_flags, encoder_flags, resolve
from tandem.encoder_client import encode_file, read_pcm16
from tandem.errors import CapabilityMissing, InvalidAudio
from tandem.launcher import spawn, wait_ready


def add_parser(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    parser = commands.add_parser(
        "encode", help="write audio embeddings and CTC log-probabilities to an npz file"
    )
    parser.add_argument("file", type=Path, metavar="FILE", help="16 kHz mono wav, 16-bit")
    parser.add_argument("-o", "--output", type=Path, required=True, metavar="OUT.npz")
    parser.add_argument(
        "--server", help="gRPC address of a running encoder; unset starts one for this command"
    )
    add_access_flags(parser)
    add_model_flags(parser)
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Write `audio_embeds` [n, hidden] and, where the model has CTC, dense `ctc_log_probs` [T, vocab]."""
    _check_wav(options.file)
    with _encoder(options) as (target, access):
        try:
            tensors = encode_file(target, options.file, access)
        except CapabilityMissing as error:
            raise CapabilityMissing(
                f"{target} is no encoder ({error}); --server needs the encoder's address, not the gateway's"
            ) from error
    arrays: dict[str, Any] = {name: tensor.float32() for name, tensor in tensors.items()}
    # Given a name instead of a file, numpy would add .npz to one that ends otherwise.
    with options.output.open("wb") as file:
        np.savez(file, **arrays)
    shapes = ", ".join(f"{name} {list(tensor.array.shape)}" for name, tensor in tensors.items())
    print(f"{options.output}: {shapes}")
    return 0


def _check_wav(path: Path) -> None:
    """InvalidAudio that names the file, before an encoder starts for it. Raises OSError."""
    try:
        read_pcm16(path.read_bytes())
    except InvalidAudio as error:
        # For a file that ends too early the wave module has no words.
        reason = f" ({error.__cause__})" if str(error.__cause__ or "") else ""
        raise InvalidAudio(f"{path}: needs a 16 kHz mono 16-bit wav file{reason}") from error


@contextlib.contextmanager
def _encoder(options: argparse.Namespace) -> Iterator[tuple[str, Access]]:
    """Where the encoder is and how to get in."""
    if options.server:
        yield options.server, access_of(options)
        return
    with tempfile.TemporaryDirectory(prefix="tandem-") as directory:
        address = f"unix:{directory}/encoder.sock"
        flags = ["--model", resolve(options.model), "--hub", options.hub, "--listen", address]
        tier = spawn(
            "encoder", "encoder_service", [*flags, *encoder_flags(options)], address, Path(directory)
        )
        try:
            wait_ready([tier], timeout=300)
            yield address, Access()
        finally:
            tier.end(grace=10)
