"""Jobs in a tier of batching replicas: how many are in flight, how long each stays, what a loop gets through.

A tier with n jobs works at a rate that depends on n alone, shared by the jobs: the gateway sends to the
replica with the least to do, so n spreads evenly over k replicas, and each batches its n / k jobs. For
arrivals at random such a server has a stationary law in closed form that depends on the mean size of jobs
only (a processor-sharing queue with state-dependent rate; F. P. Kelly, Reversibility and Stochastic
Networks, chapter 3), and a closed loop of such tiers has product form (J. P. Buzen, Computational
algorithms for closed queueing networks, 1973). tests/unit/tandem/test_plan_queues.py simulates both.
"""

from __future__ import annotations

import bisect
import itertools
from collections.abc import Sequence
from dataclasses import dataclass

from tandem.plan.curve import Curve

_NEGLIGIBLE = 1e-9
_TOO_LARGE = 1e200


@dataclass(frozen=True, slots=True)
class Station:
    """A tier: `replicas` of a curve in units per second, fed with jobs of `units` each on average."""

    curve: Curve
    replicas: int
    units: float

    @property
    def highest(self) -> float:
        """Jobs per second that the tier never exceeds."""
        return self.replicas * self.curve.highest / self.units

    def completions(self, jobs: int) -> float:
        """Jobs per second with so many in the tier."""
        busy = min(jobs, self.replicas)
        return busy * self.curve.rate(jobs / busy) / self.units if jobs else 0.0

    def time(self, jobs: int, units: float) -> float:
        """Seconds that a job of `units` takes while `jobs`, it among them, share the tier."""
        return units * jobs / (self.completions(jobs) * self.units)


def occupancy(station: Station, arrivals: float) -> list[float]:
    """Probability of 0, 1, 2, ... jobs in the tier, for Poisson arrivals per second.

    Raises ValueError when the arrivals are more than the tier completes.
    """
    if arrivals >= station.highest:
        raise ValueError(f"{arrivals:.3g} jobs a second are more than {station.highest:.3g}")
    weights = [1.0]
    for jobs in itertools.count(1):
        ratio = arrivals / station.completions(jobs)
        weights.append(weights[-1] * ratio)
        if weights[-1] > _TOO_LARGE:
            weights = [weight / _TOO_LARGE for weight in weights]
        if ratio < 1 and weights[-1] < _NEGLIGIBLE * (1 - ratio) * max(weights):
            break
    total = sum(weights)
    return [weight / total for weight in weights]


def mean_time(station: Station, arrivals: float) -> float:
    """Seconds that a job stays on average, by Little's law."""
    jobs = sum(number * probability for number, probability in enumerate(occupancy(station, arrivals)))
    return jobs / arrivals


def quantile_time(station: Station, arrivals: float, units: float, quantile: float) -> float:
    """Seconds within which this share of jobs of `units` is done, if the crowd that a job meets stays."""
    met = bisect.bisect_left(list(itertools.accumulate(occupancy(station, arrivals))), quantile)
    return station.time(met + 1, units)


def closed_rate(stations: Sequence[Station], in_flight: int) -> float:
    """Jobs per second through all stations in turn, when a new one begins as soon as one has ended.

    A station whose `units` are those of one job of the loop; jobs in flight are at least 1.
    """
    constants = [1.0] + [0.0] * in_flight
    for station in stations:
        weights = [1.0]
        for jobs in range(1, in_flight + 1):
            weights.append(weights[-1] / station.completions(jobs))
        constants = [
            sum(constants[total - jobs] * weights[jobs] for jobs in range(total + 1))
            for total in range(in_flight + 1)
        ]
    return constants[in_flight - 1] / constants[in_flight]
