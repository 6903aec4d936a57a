"""A stack with live recognition, and clients that speak to it in real time."""

from __future__ import annotations

import asyncio
import contextlib
import tempfile
from collections.abc import AsyncIterator, Iterator, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from tandem.launcher import Addresses, Stack, StackConfig
from tests.support.ports import free_port
from tests.support.recordings import recording
from tests.support.services import NANO

FRAME = 1600
DECODER = ("--dtype", "fp32", "--max-model-len", "2048")


@contextlib.contextmanager
def live_stack(
    *, realtime: bool = False, http: bool = False, gateway_args: Sequence[str] = (), model: Path = NANO
) -> Iterator[Stack]:
    """The three tiers; WebSocket and HTTP ports only where asked for."""
    with tempfile.TemporaryDirectory(prefix="tandem-live-") as directory:
        root = Path(directory)
        config = StackConfig(
            str(model),
            Addresses.unix(root),
            engine="transformers",
            log_dir=root,
            decoder_args=DECODER,
            gateway_args=gateway_args,
            realtime_port=free_port() if realtime else 0,
            http_port=free_port() if http else 0,
        )
        with Stack(config) as running:
            yield running


def pcm(name: str, silence: float = 0.0) -> npt.NDArray[np.int16]:
    """A recording as int16 [n] at 16 kHz, with silence after it."""
    samples = np.rint(recording(name) * 32768).clip(-32768, 32767).astype(np.int16)
    return np.concatenate([samples, np.zeros(round(silence * 16_000), dtype=np.int16)])


async def paced(audio: npt.NDArray[np.int16], speed: float = 1.0, frame: int = FRAME) -> AsyncIterator[bytes]:
    """Frames at the pace of a microphone; `speed` 2 is twice as fast."""
    loop = asyncio.get_running_loop()
    begin = loop.time()
    for first in range(0, len(audio), frame):
        due = begin + (first + frame) / 16_000 / speed
        await asyncio.sleep(max(0.0, due - loop.time()))
        yield audio[first : first + frame].tobytes()
