"""When the first words of an utterance are shown, without a load and without a clock: the schedule alone.

    python -m benchmarks.first_words [FILE...] [--latency 0.015]

A session's state machine hears recordings in frames of 100 ms, each recording from ten places of a frame;
voice activity detection and the CTC branch are real, and a pass takes `--latency` seconds. Milliseconds count
from where benchmarks.streaming says that speech begins.
"""

from __future__ import annotations

import argparse
import heapq
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from benchmarks.streaming import FRAME, LOOK_BACK, RATE, TRAILING_SILENCE, Pcm
from encoder_service.checkpoint import load_checkpoint
from encoder_service.engine import EncoderEngine, EngineConfig
from encoder_service.messages import CtcOutput, EncodeItem
from encoder_service.responses import path_message
from gateway.audio.decode import decode
from gateway.config import DEFAULT_VAD
from gateway.session.config import PartialPolicy, SessionOptions
from gateway.session.core import SessionCore
from gateway.session.ears import VadEars
from gateway.session.events import Final, Partial, SpeechBegan
from gateway.session.jobs import Abilities, Answer, CtcHeard, Decoded, DecodeJob, JobKind
from gateway.session.timeline import CtcPiece
from gateway.vad.fsmn import FsmnVad
from tandem.cli.models import resolve
from tandem.results import Segment

_PLACES = 10
_FILES = ("examples/meeting.flac", "tests/data/audio/meeting_4spk.flac")


class Hearer:
    """The CTC branch of a model, in this process."""

    def __init__(self, model: str) -> None:
        self._engine = EncoderEngine(load_checkpoint(resolve(model)), EngineConfig())

    def answer(self, job: DecodeJob) -> Answer:
        """Tokens without their text for a CTC pass; the language model says one word."""
        if job.kind is not JobKind.CTC:
            return Decoded(Segment("heard", job.start / RATE, job.end / RATE))
        (encoded,) = self._engine.encode([EncodeItem(job.samples, CtcOutput.COMPACT, embeds=False)])
        assert encoded.compact is not None
        path = path_message(encoded.compact)
        return CtcHeard(tuple(CtcPiece(b" %d" % token, job.start) for token in path.token_ids))


@dataclass(slots=True)
class Session:
    """One session in simulated time; seconds after speech begins that it is `told` and words are `shown`."""

    hearer: Hearer
    latency: float
    policy: PartialPolicy
    now: float = 0.0
    told: dict[int, float] = field(default_factory=dict)
    shown: dict[int, float] = field(default_factory=dict)
    onsets: dict[int, float] = field(default_factory=dict)
    taken_back: int = 0
    _out: dict[int, DecodeJob] = field(default_factory=dict)
    _due: list[tuple[float, int]] = field(default_factory=list)

    def play(self, audio: Pcm, model: FsmnVad) -> None:
        core = SessionCore(SessionOptions(partials=self.policy), Abilities(True, 60.0), lambda: self.now)
        ears = VadEars(model)
        for first in range(0, len(audio), FRAME):
            block = audio[first : first + FRAME]
            self._wait(core, (first + len(block)) / RATE)
            core.hear(block, ears.push(block))
            self._carry_out(core)
        self._wait(core, self.now + 1.0)

    def _wait(self, core: SessionCore, until: float) -> None:
        while self._due and self._due[0][0] <= until:
            self.now, number = heapq.heappop(self._due)
            job = self._out.pop(number, None)
            if job is not None:
                core.done(job, self.hearer.answer(job))
                self._carry_out(core)
        self.now = until

    def _carry_out(self, core: SessionCore) -> None:
        effects = core.take()
        for job in effects.starts:
            self._out[job.id] = job
            heapq.heappush(self._due, (self.now + self.latency, job.id))
        for number in effects.cancels:
            self._out.pop(number, None)
        for event in (update.event for update in effects.updates):
            if isinstance(event, SpeechBegan):
                self.onsets[event.index] = event.at + LOOK_BACK
                self.told[event.index] = self.now - self.onsets[event.index]
            elif isinstance(event, Partial):
                self.shown.setdefault(event.index, self.now - self.onsets[event.index])
            elif isinstance(event, Final):
                self.taken_back += not event.segment.text


def _row(name: str, values: list[float]) -> str:
    p50, p95, most = 1000 * np.percentile(values, (50, 95, 100))
    return f"{name:<36}{p50:>6.0f}{p95:>6.0f}{most:>6.0f}"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("files", nargs="*", default=_FILES)
    parser.add_argument("--latency", type=float, default=0.015)
    parser.add_argument("--model", default="demo")
    options = parser.parse_args()
    hearer, vad = Hearer(options.model), FsmnVad(DEFAULT_VAD)
    policies = {"detector": PartialPolicy(enabled=False), "words": PartialPolicy(llm=False)}
    sessions: dict[str, list[Session]] = {name: [] for name in policies}
    for file in options.files:
        pcm = np.rint(decode(Path(file).read_bytes()).channel() * 32767).astype(np.int16)
        pcm = np.concatenate([pcm, np.zeros(int(TRAILING_SILENCE * RATE), np.int16)])
        for first in range(0, FRAME, FRAME // _PLACES):
            for name, policy in policies.items():
                session = Session(hearer, options.latency, policy)
                session.play(pcm[first:], vad)
                sessions[name].append(session)
    told = [seconds for session in sessions["detector"] for seconds in session.told.values()]
    shown = [seconds for session in sessions["words"] for seconds in session.shown.values()]
    print(f"{len(told) // _PLACES} utterances at {_PLACES} places of a frame; ms: p50, p95, most")
    print(_row("the detector is sure, frame complete", told))
    print(_row("first words", shown))
    print(f"words taken back: {sum(session.taken_back for session in sessions['words'])} times")


if __name__ == "__main__":
    main()
