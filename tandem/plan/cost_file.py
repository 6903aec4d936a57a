"""What the stages cost on one kind of machine: a JSON file, written by `python -m benchmarks.stage_costs`."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tandem.errors import InvalidRequest
from tandem.plan.curve import Curve

FORMAT = "tandem-stage-costs-1"
PACKAGED = Path(__file__).with_name("costs")


@dataclass(frozen=True, slots=True)
class GatewayCosts:
    """Processor seconds, in the gateway's own process and in its workers that decode recordings.

    `cores` is how many processors the process itself can keep busy; a worker is one more each.
    """

    process_per_audio_second: float
    process_per_request: float
    worker_per_audio_second: float
    worker_per_request: float
    process_per_stream_second: float
    cores: float


@dataclass(frozen=True, slots=True)
class EncoderCosts:
    """`curve` in seconds of audio per second by segments in flight; `gpus` of a replica, 0 on a CPU."""

    curve: Curve
    gpus: int


@dataclass(frozen=True, slots=True)
class DecoderCosts:
    """`curve` in generated tokens per second by requests in flight; `gpus` of a replica, 0 on a CPU."""

    curve: Curve
    gpus: int


@dataclass(frozen=True, slots=True)
class Speech:
    """What recordings are made of: `speech_share` seconds of segments in a second of recording."""

    segment_seconds: float
    segment_tokens: float
    speech_share: float


@dataclass(frozen=True, slots=True)
class LiveCosts:
    """What one second of one live stream asks of the tiers behind the gateway, partials included."""

    encoder_requests: float
    encoder_audio_seconds: float
    decoder_requests: float
    decoder_tokens: float


@dataclass(frozen=True, slots=True)
class StageCosts:
    """Everything that a plan is computed from; `about` says where and how it was measured."""

    about: dict[str, Any]
    gateway: GatewayCosts
    encoder: EncoderCosts
    decoder: DecoderCosts
    speech: Speech
    live: LiveCosts


def packaged_names() -> list[str]:
    """Costs that come with the package, by name."""
    return sorted(path.stem for path in PACKAGED.glob("*.json"))


def load_costs(name: str) -> StageCosts:
    """Costs by a packaged name or the path of a file. Raises InvalidRequest that names what is wrong."""
    path = PACKAGED / f"{name}.json" if name in packaged_names() else Path(name)
    try:
        tree = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        known = ", ".join(packaged_names())
        raise InvalidRequest(f"no costs {name!r}: give a file or one of {known}") from error
    except ValueError as error:
        raise InvalidRequest(f"{path} is no JSON: {error}") from error
    if not isinstance(tree, dict) or tree.get("format") != FORMAT:
        raise InvalidRequest(f'{path} is no file of costs: its "format" is not {FORMAT!r}')
    return _parse(_Section(path.name, "", tree))


@dataclass(frozen=True, slots=True)
class _Section:
    """A mapping of the file, with its place for messages."""

    file: str
    place: str
    tree: dict[str, Any]

    def section(self, name: str) -> _Section:
        found = self.tree.get(name)
        if not isinstance(found, dict):
            raise InvalidRequest(f"{self.file}: {self.place}{name} is not there")
        return _Section(self.file, f"{self.place}{name}.", found)

    def number(self, name: str, *, above_zero: bool = False) -> float:
        found = self.tree.get(name)
        if isinstance(found, bool) or not isinstance(found, (int, float)) or not math.isfinite(found):
            raise InvalidRequest(f"{self.file}: {self.place}{name} is no number")
        if found < 0 or (above_zero and found == 0):
            limit = "above 0" if above_zero else "at least 0"
            raise InvalidRequest(f"{self.file}: {self.place}{name} is {found}, must be {limit}")
        return float(found)

    def curve(self, unit: str) -> Curve:
        rows = self.tree.get("curve")
        if not isinstance(rows, list) or not rows or not all(isinstance(row, dict) for row in rows):
            raise InvalidRequest(f"{self.file}: {self.place}curve needs at least one point")
        points = []
        for index, row in enumerate(rows):
            point = _Section(self.file, f"{self.place}curve[{index}].", row)
            points.append((point.number("in_flight", above_zero=True), point.number(unit, above_zero=True)))
        if [jobs for jobs, _ in points] != sorted({jobs for jobs, _ in points}):
            raise InvalidRequest(f"{self.file}: {self.place}curve: in_flight does not rise")
        return Curve(tuple(points))


def _parse(file: _Section) -> StageCosts:
    gateway, encoder, decoder = file.section("gateway"), file.section("encoder"), file.section("decoder")
    speech, live = file.section("speech"), file.section("live")
    return StageCosts(
        about=file.section("about").tree,
        gateway=GatewayCosts(
            process_per_audio_second=gateway.number("process_per_audio_second"),
            process_per_request=gateway.number("process_per_request"),
            worker_per_audio_second=gateway.number("worker_per_audio_second"),
            worker_per_request=gateway.number("worker_per_request"),
            process_per_stream_second=gateway.number("process_per_stream_second"),
            cores=gateway.number("cores", above_zero=True),
        ),
        encoder=EncoderCosts(encoder.curve("audio_seconds_per_second"), int(encoder.number("gpus"))),
        decoder=DecoderCosts(decoder.curve("tokens_per_second"), int(decoder.number("gpus"))),
        speech=Speech(
            segment_seconds=speech.number("segment_seconds", above_zero=True),
            segment_tokens=speech.number("segment_tokens", above_zero=True),
            speech_share=speech.number("speech_share", above_zero=True),
        ),
        live=LiveCosts(
            encoder_requests=live.number("encoder_requests", above_zero=True),
            encoder_audio_seconds=live.number("encoder_audio_seconds", above_zero=True),
            decoder_requests=live.number("decoder_requests", above_zero=True),
            decoder_tokens=live.number("decoder_tokens", above_zero=True),
        ),
    )
