"""From live streams and hours of recordings to replicas: the fewest that keep utilisation and latency."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

from tandem.errors import InvalidRequest
from tandem.plan.cost_file import StageCosts
from tandem.plan.curve import Curve
from tandem.plan.queues import Station, quantile_time

QUANTILE = 0.95
_DAY_SECONDS = 86_400.0
_MOST_REPLICAS = 4096


@dataclass(frozen=True, slots=True)
class Demand:
    """`live_streams` at the same time at the peak; `audio_hours` of recordings a day.

    At the peak, recordings come `peak_factor` times as fast as over the day. `recording_seconds` is how long
    one is on average.
    """

    live_streams: float = 0.0
    audio_hours: float = 0.0
    peak_factor: float = 2.0
    recording_seconds: float = 60.0

    @property
    def recorded(self) -> float:
        """Seconds of recordings per second at the peak."""
        return self.audio_hours * 3600 / _DAY_SECONDS * self.peak_factor


@dataclass(frozen=True, slots=True)
class Target:
    """`utilization` no tier exceeds at the peak. `latency`: seconds within which 95 % of segments are encoded
    and decoded once their audio is there; None sets no limit. `spare` replicas of each tier may be lost."""

    utilization: float = 0.7
    latency: float | None = None
    spare: int = 0


@dataclass(frozen=True, slots=True)
class Load:
    """What a tier is asked at the peak: jobs per second, and units of work (audio, tokens) per second."""

    jobs: float
    units: float

    def station(self, curve: Curve, replicas: int) -> Station:
        return Station(curve, replicas, self.units / self.jobs)


@dataclass(frozen=True, slots=True)
class GatewayLoad:
    """Processors busy at the peak: in the gateways' own processes, and in their workers."""

    process: float
    workers: float


@dataclass(frozen=True, slots=True)
class TierPlan:
    """`utilization` at the peak of the replicas without the spare ones; `latency` is this tier's part."""

    replicas: int
    utilization: float
    latency: float = 0.0
    gpus: int = 0
    """Of all replicas."""


@dataclass(frozen=True, slots=True)
class Plan:
    """`cores` and `audio_workers` are those of one gateway, `max_sessions` leaves room for lost gateways."""

    gateway: TierPlan
    encoder: TierPlan
    decoder: TierPlan
    cores: int
    audio_workers: int
    max_sessions: int

    @property
    def latency(self) -> float:
        """Seconds within which 95 % of segments are encoded and decoded."""
        return self.encoder.latency + self.decoder.latency

    @property
    def gpus(self) -> int:
        return self.encoder.gpus + self.decoder.gpus


def encoder_load(costs: StageCosts, demand: Demand) -> Load:
    speech = demand.recorded * costs.speech.speech_share
    live = demand.live_streams
    return Load(
        speech / costs.speech.segment_seconds + live * costs.live.encoder_requests,
        speech + live * costs.live.encoder_audio_seconds,
    )


def decoder_load(costs: StageCosts, demand: Demand) -> Load:
    segments = demand.recorded * costs.speech.speech_share / costs.speech.segment_seconds
    live = demand.live_streams
    return Load(
        segments + live * costs.live.decoder_requests,
        segments * costs.speech.segment_tokens + live * costs.live.decoder_tokens,
    )


def gateway_load(costs: StageCosts, demand: Demand) -> GatewayLoad:
    cost, requests = costs.gateway, demand.recorded / demand.recording_seconds
    process = demand.recorded * cost.process_per_audio_second + requests * cost.process_per_request
    return GatewayLoad(
        process + demand.live_streams * cost.process_per_stream_second,
        demand.recorded * cost.worker_per_audio_second + requests * cost.worker_per_request,
    )


def make_plan(costs: StageCosts, demand: Demand, target: Target) -> Plan:
    """The fewest replicas. Raises InvalidRequest for what makes no sense or cannot be met."""
    _check(demand, target)
    encoder, decoder = encoder_load(costs, demand), decoder_load(costs, demand)
    search = _Search(costs, encoder, decoder, target)
    encoders, decoders = search.replicas()
    processors = gateway_load(costs, demand)
    # By what one process can do: workers are added to a gateway, not gateways to workers.
    gateways = max(1, math.ceil(processors.process / (costs.gateway.cores * target.utilization)))
    processes, workers = processors.process / gateways, processors.workers / gateways
    return Plan(
        gateway=TierPlan(gateways + target.spare, processes / costs.gateway.cores),
        encoder=TierPlan(
            encoders + target.spare,
            encoder.units / (encoders * costs.encoder.curve.highest),
            search.encoder_time(encoders),
            (encoders + target.spare) * costs.encoder.gpus,
        ),
        decoder=TierPlan(
            decoders + target.spare,
            decoder.units / (decoders * costs.decoder.curve.highest),
            search.decoder_time(decoders),
            (decoders + target.spare) * costs.decoder.gpus,
        ),
        cores=max(1, math.ceil((processes + workers) / target.utilization)),
        audio_workers=max(1, math.ceil(workers / target.utilization)),
        max_sessions=max(1, math.ceil(demand.live_streams / gateways / target.utilization)),
    )


def _check(demand: Demand, target: Target) -> None:
    if min(demand.live_streams, demand.audio_hours) < 0 or demand.live_streams + demand.audio_hours == 0:
        raise InvalidRequest("a plan needs live streams or hours of recordings")
    if demand.peak_factor < 1 or demand.recording_seconds <= 0 or target.spare < 0:
        raise InvalidRequest(
            "the peak factor is at least 1, recordings have a length, spares are not negative"
        )
    if not 0 < target.utilization < 1:
        raise InvalidRequest(f"utilization {target.utilization} is not between 0 and 1")


@dataclass(frozen=True, slots=True)
class _Search:
    """Replicas of the two tiers behind the gateway."""

    costs: StageCosts
    encoder: Load
    decoder: Load
    target: Target

    def encoder_time(self, replicas: int) -> float:
        station = self.encoder.station(self.costs.encoder.curve, replicas)
        return quantile_time(station, self.encoder.jobs, self.costs.speech.segment_seconds, QUANTILE)

    def decoder_time(self, replicas: int) -> float:
        station = self.decoder.station(self.costs.decoder.curve, replicas)
        return quantile_time(station, self.decoder.jobs, self.costs.speech.segment_tokens, QUANTILE)

    def replicas(self) -> tuple[int, int]:
        """Encoders and decoders. Neither can be one less."""
        encoders, decoders = self._for(self.target.utilization)
        if max(encoders, decoders) > _MOST_REPLICAS:
            raise InvalidRequest(f"this takes more than {_MOST_REPLICAS} replicas: split it over clusters")
        latency = self.target.latency
        if latency is None or self.encoder_time(encoders) + self.decoder_time(decoders) <= latency:
            return encoders, decoders
        if self.encoder_time(_MOST_REPLICAS) + self.decoder_time(_MOST_REPLICAS) > latency:
            alone = self.encoder_time(_MOST_REPLICAS) + self.decoder_time(_MOST_REPLICAS)
            raise InvalidRequest(
                f"no number of replicas gives {latency * 1000:.0f} ms: "
                f"a segment that has them to itself takes {alone * 1000:.0f} ms"
            )
        more_encoders, more_decoders = self._idle_enough(latency)
        # Both were made as idle as each other: what one tier does not need is taken back.
        wanted = latency - self.decoder_time(more_decoders)
        fewer = _smallest(encoders, more_encoders, lambda count: self.encoder_time(count) <= wanted)
        wanted = latency - self.encoder_time(fewer)
        return fewer, _smallest(decoders, more_decoders, lambda count: self.decoder_time(count) <= wanted)

    def _for(self, utilization: float) -> tuple[int, int]:
        def needed(load: Load, curve: Curve) -> int:
            return max(1, math.ceil(load.units / (curve.highest * utilization)))

        return needed(self.encoder, self.costs.encoder.curve), needed(self.decoder, self.costs.decoder.curve)

    def _idle_enough(self, latency: float) -> tuple[int, int]:
        """Replicas at the highest common utilisation that keeps the latency."""
        busy, idle = self.target.utilization, 0.0
        best = (_MOST_REPLICAS, _MOST_REPLICAS)
        for _ in range(24):
            middle = (busy + idle) / 2
            encoders, decoders = (min(count, _MOST_REPLICAS) for count in self._for(middle))
            if self.encoder_time(encoders) + self.decoder_time(decoders) <= latency:
                idle, best = middle, (encoders, decoders)
            else:
                busy = middle
        return best


def _smallest(low: int, high: int, holds: Callable[[int], bool]) -> int:
    """The smallest count of low..high for which `holds`; it holds for every larger one too."""
    while low < high:
        middle = (low + high) // 2
        if holds(middle):
            high = middle
        else:
            low = middle + 1
    return high
