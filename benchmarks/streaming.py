"""Live recognition under load: paced clients, each sending 100 ms frames in real time.

    python -m benchmarks.streaming --streams 1 4 8 [--server HOST:PORT] [--audio FILE --reference FILE]

Times are wall clock at the client. "first partial": after speech begins in the recording. "final": after the
frame that brought the endpoint was sent, and after speech ended. "lag": age of the newest audio that a
message covers. Errors are word errors against the reference, and against what one stream alone gets; those
of partials against the beginning of their final. "encoded": seconds of audio that the encoder computes for
each second of a stream, where the tiers are started here.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import functools
import json
import multiprocessing
import os
import re
import sys
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field, fields
from pathlib import Path

import numpy as np

from benchmarks import metrics, processor
from gateway.audio.decode import decode
from gateway.config import DEFAULT_VAD
from gateway.session.config import SessionOptions
from gateway.session.ears import VadEars
from gateway.session.endpoints import Endpoints
from gateway.vad.detector import Boundary
from gateway.vad.fsmn import FsmnVad
from tandem.cli.models import resolve
from tandem.launcher import private_stack
from tandem.live_events import Ended, Final, LiveEvent, Partial, SpeechBegan, SpeechEnded
from tandem.results import RecognizeOptions
from tandem.streaming_client import LiveStream, StreamOptions

Pcm = np.ndarray[tuple[int], np.dtype[np.int16]]

RATE, FRAME = 16_000, 1_600
TRAILING_SILENCE = 2.5
_PATIENCE = 2.0
"""A stream that takes so many times its audio's length has failed."""
# What the detector keeps after the last speech frame, and hears before the first one.
_TAIL, LOOK_BACK = 0.11, 0.25
_STAGGER = 2.0
_LONGEST = 60.0
"""Seconds of a segment at most, as an encoder of a published model says by default."""
METRICS_PORT = 18953


@dataclass(slots=True)
class Measured:
    """Seconds of each kind, text and number of finals, of one or many streams.

    wrong: streams whose finals do not end where the detector alone, on the same audio, ends speech.
    """

    first_partial: list[float] = field(default_factory=list)
    final_after_endpoint: list[float] = field(default_factory=list)
    final_after_speech: list[float] = field(default_factory=list)
    lag: list[float] = field(default_factory=list)
    texts: list[str] = field(default_factory=list)
    partials: list[tuple[str, str]] = field(default_factory=list)
    """Texts of partials, each with that of its final."""
    finals: list[int] = field(default_factory=list)
    failed: int = 0
    wrong: int = 0
    processor: float = 0.0

    def add(self, other: Measured) -> None:
        for each in fields(self):
            values = getattr(self, each.name)
            if isinstance(values, list):
                values.extend(getattr(other, each.name))
        self.failed += other.failed
        self.wrong += other.wrong
        self.processor += other.processor


@dataclass(frozen=True, slots=True)
class Load:
    """So many streams of a recording at a time, from `processes` processes, to the targets by turns.

    seconds: only so much of it; 0 is all. distinct: noise of one bit makes each stream new to every cache.
    shifted: each begins at another sample of a client's frame, so that speech begins anywhere in one.
    """

    targets: tuple[str, ...]
    path: str
    options: StreamOptions
    streams: int = 1
    processes: int = 1
    seconds: float = 0.0
    distinct: bool = False
    shifted: bool = False

    def audio(self) -> Pcm:
        """The recording and the silence after it."""
        samples = decode(Path(self.path).read_bytes()).channel()
        pcm = np.rint(samples * 32767).astype(np.int16)[: int(self.seconds * RATE) or None]
        return np.concatenate([pcm, np.zeros(int(TRAILING_SILENCE * RATE), dtype=np.int16)])

    def of_stream(self, audio: Pcm, number: int) -> Pcm:
        """What stream `number` sends of the recording."""
        audio = audio[FRAME * number // self.streams :] if self.shifted else audio
        return audio ^ _noise(number, len(audio)) if self.distinct else audio

    def share(self, process: int) -> range:
        """Numbers of the streams of one process."""
        return range(process, self.streams, self.processes)


@dataclass(slots=True)
class Client:
    """One stream: what was sent when, and what came back when."""

    audio: Pcm
    begin: float = 0.0
    measured: Measured = field(default_factory=Measured)
    onsets: dict[int, float] = field(default_factory=dict)
    endpoints: dict[int, float] = field(default_factory=dict)
    partials: list[str] = field(default_factory=list)
    finals: list[str] = field(default_factory=list)
    ends: list[int] = field(default_factory=list)

    async def run(self, target: str, options: StreamOptions, delay: float) -> Measured:
        await asyncio.sleep(delay)
        loop = asyncio.get_running_loop()
        async with LiveStream(target, options) as live:
            self.begin = loop.time()
            sending = asyncio.create_task(self._send(live))
            async for event in live:
                self._note(event, live.cursors.received, loop.time() - self.begin)
            await sending
        self.measured.texts.append(" ".join(text for text in self.finals if text))
        self.measured.finals.append(len(self.finals))
        return self.measured

    def check(self) -> None:
        """Count the stream as wrong when a final was lost, invented or moved."""
        self.measured.wrong = int(self.ends != ends_of_speech(self.audio))

    async def _send(self, live: LiveStream) -> None:
        loop = asyncio.get_running_loop()
        for first in range(0, len(self.audio), FRAME):
            due = self.begin + (first + FRAME) / RATE
            await asyncio.sleep(max(0.0, due - loop.time()))
            await live.send(self.audio[first : first + FRAME].tobytes())
        live.end()

    def _note(self, event: LiveEvent, received: float, now: float) -> None:
        if isinstance(event, SpeechBegan):
            self.onsets[event.index] = event.at + LOOK_BACK
        elif isinstance(event, Partial):
            self.measured.lag.append(now - event.end)
            self.partials.append(event.text)
            onset = self.onsets.pop(event.index, None)
            if onset is not None:
                self.measured.first_partial.append(now - onset)
        elif isinstance(event, SpeechEnded):
            self.endpoints[event.index] = received
        elif isinstance(event, Final):
            self.finals.append(event.segment.text)
            self.ends.append(round(event.segment.end * RATE))
            self.measured.partials += [(text, event.segment.text) for text in self.partials]
            self.partials.clear()
            if event.segment.end < len(self.audio) / RATE - TRAILING_SILENCE / 2:
                self.measured.final_after_endpoint.append(now - self.endpoints[event.index])
                self.measured.final_after_speech.append(now - event.segment.end + _TAIL)
        elif not isinstance(event, Ended):
            raise TypeError(f"unexpected event {event}")


async def _streams(load: Load, process: int) -> Measured:
    audio, together = load.audio(), Measured()
    before = processor.seconds([os.getpid()])
    limit = _STAGGER + _PATIENCE * len(audio) / RATE

    async def run(number: int) -> Client:
        client = Client(load.of_stream(audio, number))
        target, delay = load.targets[number % len(load.targets)], _STAGGER * number / load.streams
        await asyncio.wait_for(client.run(target, load.options, delay), limit)
        return client

    runs = [run(number) for number in load.share(process)]
    results = await asyncio.gather(*runs, return_exceptions=True)
    together.processor = processor.seconds([os.getpid()]) - before
    for result in results:
        if isinstance(result, Client):
            result.check()
            together.add(result.measured)
        else:
            print(f"a stream failed: {result!r}", file=sys.stderr)
            together.failed += 1
    return together


def ends_of_speech(audio: Pcm) -> list[int]:
    """Samples at which a session with default options ends speech, by the detector alone."""
    ears, endpoints = VadEars(_detector()), Endpoints(SessionOptions(), _LONGEST)
    steps = [ears.push(audio[first : first + FRAME]) for first in range(0, len(audio), FRAME)]
    found = [event for step in steps for event in endpoints.push(step)]
    found += endpoints.push(ears.finish(), last=True)
    return [event.at for event in found if event is not None and event.boundary is Boundary.END]


@functools.cache
def _detector() -> FsmnVad:
    return FsmnVad(DEFAULT_VAD)


def _noise(seed: int, length: int) -> Pcm:
    bits = np.random.default_rng(seed).bytes(length // 8 + 1)
    return np.unpackbits(np.frombuffer(bits, np.uint8))[:length].astype(np.int16)


def _process(load: Load, process: int) -> Measured:
    return asyncio.run(_streams(load, process))


def measure(load: Load) -> Measured:
    """Streams begin over two seconds, in processes of their own."""
    together, number = Measured(), min(load.processes, load.streams)
    with ProcessPoolExecutor(number, multiprocessing.get_context("spawn")) as pool:
        for part in pool.map(_process, [load] * number, range(number)):
            together.add(part)
    return together


def words(text: str) -> list[str]:
    return re.findall(r"[\w']+", text.lower())


def word_errors(reference: Sequence[str], heard: Sequence[str], *, begin: bool = False) -> int:
    """Substitutions, insertions and deletions; with `begin`, against the best beginning of the reference."""
    row = list(range(len(heard) + 1))
    best = row[-1]
    for i, wanted in enumerate(reference, 1):
        previous, row[0] = row[0], i
        for j, got in enumerate(heard, 1):
            previous, row[j] = row[j], min(row[j] + 1, row[j - 1] + 1, previous + (wanted != got))
        best = min(best, row[-1])
    return best if begin else row[-1]


def partial_errors(partials: Sequence[tuple[str, str]]) -> float | None:
    """Word errors of partial texts, of all their words; None without partials."""
    pairs = [(words(final), words(partial)) for partial, final in partials]
    shown = sum(len(partial) for _, partial in pairs)
    wrong = sum(word_errors(final, partial, begin=True) for final, partial in pairs)
    return round(wrong / shown, 4) if shown else None


def _percentiles(values: Sequence[float]) -> dict[str, float]:
    if not values:
        return {"p50": float("nan"), "p95": float("nan")}
    return {f"p{p}": round(float(np.percentile(values, p)) * 1000) for p in (50, 95)}


def latencies(got: Measured) -> dict[str, dict[str, float]]:
    """Percentiles in milliseconds."""
    return {
        "first_partial_ms": _percentiles(got.first_partial),
        "final_after_endpoint_ms": _percentiles(got.final_after_endpoint),
        "final_after_speech_ms": _percentiles(got.final_after_speech),
        "lag_ms": _percentiles(got.lag),
    }


def difference(wanted: str, texts: Sequence[str]) -> float | None:
    """Mean word error rate of the texts; None without texts."""
    right = words(wanted)
    rates = [word_errors(right, words(text)) / max(1, len(right)) for text in texts]
    return round(float(np.mean(rates)), 4) if rates else None


def summary(streams: int, got: Measured, reference: str, alone: str) -> dict[str, object]:
    """One row: milliseconds and word error rates."""
    return {
        "streams": streams,
        "failed": got.failed,
        "wrong_finals": got.wrong,
        **latencies(got),
        "partials_per_stream": round(len(got.lag) / max(1, len(got.texts)), 1),
        "partial_wer": partial_errors(got.partials),
        "wer": difference(reference, got.texts),
        "wer_against_one_stream": difference(alone, got.texts),
    }


@contextlib.contextmanager
def _server(options: argparse.Namespace) -> Iterator[tuple[str, tuple[int, ...]]]:
    """gRPC addresses, and the port of the encoder's metrics where the tiers are started here."""
    if options.server:
        yield options.server, ()
        return
    metrics_port = ["--metrics-port", str(METRICS_PORT)]
    with private_stack(resolve(options.model), engine=options.engine, encoder_args=metrics_port) as stack:
        yield stack.address, (METRICS_PORT,)


def encoded_seconds(ports: Sequence[int]) -> float:
    """Seconds of audio that the encoder of these metrics has computed; 0 without ports."""
    return metrics.counters(ports).get("tandem_encoder_audio_seconds_total", 0.0)


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--streams", type=int, nargs="+", default=[1, 4, 8])
    parser.add_argument("--server", help="gRPC addresses, by comma; unset starts the three tiers")
    parser.add_argument("--model", default="demo")
    parser.add_argument("--engine", default="auto")
    parser.add_argument("--audio", default="examples/meeting.flac")
    parser.add_argument("--reference", default="examples/meeting.json", help='JSON with "text", or text')
    parser.add_argument("--language", help="ISO code or name")
    parser.add_argument("--processes", type=int, default=1, help="client processes")
    parser.add_argument("--shifted", action="store_true", help="speech begins anywhere in a client's frame")
    options = parser.parse_args()
    text = Path(options.reference).read_text(encoding="utf-8")
    reference = str(json.loads(text)["text"]) if options.reference.endswith(".json") else text
    wanted = StreamOptions(RecognizeOptions(language=options.language))
    with _server(options) as (target, ports):
        targets = tuple(target.split(","))
        measure(Load(targets, options.audio, wanted))  # warm-up
        alone = ""
        for streams in options.streams:
            load = Load(targets, options.audio, wanted, streams, options.processes, shifted=options.shifted)
            before = encoded_seconds(ports)
            got = measure(load)
            alone = alone or (got.texts[0] if got.texts else "")
            row = summary(streams, got, reference, alone)
            if ports:
                spent = encoded_seconds(ports) - before
                row["encoded"] = round(spent / (streams * len(load.audio()) / RATE), 2)
            print(json.dumps(row), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
