"""How fast one replica works with so many jobs in flight: the measured shape of a batching server."""

from __future__ import annotations

import itertools
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Curve:
    """Units of work per second (audio seconds, tokens) of one replica, by jobs in flight.

    `points` are (in flight, rate), in flight strictly rising from at least 1. Between points the rate is
    interpolated; before the first it is proportional to the jobs in flight, which says that a smaller batch
    takes as long; after the last it stays. A rate that falls with more jobs is taken as what it was: the
    tier's own limits keep the rest waiting.
    """

    points: tuple[tuple[float, float], ...]

    @property
    def highest(self) -> float:
        """Units per second with any number of jobs."""
        return max(rate for _, rate in self.points)

    def rate(self, in_flight: float) -> float:
        """Units per second with so many jobs, which need not be a whole number: an average of replicas."""
        first_jobs, first_rate = self.points[0]
        if in_flight <= first_jobs:
            return first_rate * in_flight / first_jobs
        best = first_rate
        for (jobs, rate), (more_jobs, more_rate) in itertools.pairwise(self.points):
            if in_flight < more_jobs:
                share = (in_flight - jobs) / (more_jobs - jobs)
                return max(best, rate + share * (more_rate - rate))
            best = max(best, more_rate)
        return best

    def scaled(self, factor: float) -> Curve:
        """The same machine at another speed."""
        return Curve(tuple((jobs, rate * factor) for jobs, rate in self.points))
