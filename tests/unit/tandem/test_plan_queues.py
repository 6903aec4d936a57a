"""The closed forms of tandem.plan.queues against simulations that know nothing of them."""

from __future__ import annotations

import random
from collections.abc import Callable

import pytest

from tandem.plan.curve import Curve
from tandem.plan.queues import Station, closed_rate, mean_time, occupancy, quantile_time

CURVE = Curve(((1, 10.0), (4, 30.0), (16, 60.0)))
"""Units per second, as batching gives them: 16 jobs at once are six times as fast as one."""

Size = Callable[[random.Random], float]
SIZES: dict[str, Size] = {
    "constant": lambda rng: 2.0,
    "exponential": lambda rng: rng.expovariate(0.5),
    "short and long": lambda rng: rng.choices([0.5, 8.0], [0.8, 0.2])[0],
}
"""All with a mean of 2 units."""


def simulate(replicas: int, arrivals: float, size: Size, jobs: int, seed: int) -> list[float]:
    """Seconds that each job stays: replicas share their rate among their jobs; a job joins the emptiest."""
    rng = random.Random(seed)
    now, due, left = 0.0, rng.expovariate(arrivals), jobs
    work: list[list[list[float]]] = [[] for _ in range(replicas)]  # [units to do, time of arrival]
    stays: list[float] = []
    while len(stays) < jobs:
        speeds = [CURVE.rate(len(own)) / len(own) if own else 0.0 for own in work]
        ends = [
            (now + min(job[0] for job in own) / speed, index)
            for index, (own, speed) in enumerate(zip(work, speeds, strict=True))
            if own
        ]
        then, ending = min([*ends, (due, -1)])
        for own, speed in zip(work, speeds, strict=True):
            for job in own:
                job[0] -= (then - now) * speed
        now = then
        if ending < 0:
            min(work, key=len).append([size(rng), now])
            left -= 1
            due = now + rng.expovariate(arrivals) if left else float("inf")
        else:
            done = min(work[ending])
            work[ending].remove(done)
            stays.append(now - done[1])
    return stays


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("busy", [0.3, 0.8])
def test_times_of_one_replica_depend_on_the_mean_size_only(size: str, busy: float) -> None:
    station = Station(CURVE, 1, 2.0)
    arrivals = busy * station.highest
    stays = simulate(1, arrivals, SIZES[size], 12_000, seed=7)[2_000:]
    assert mean_time(station, arrivals) == pytest.approx(sum(stays) / len(stays), rel=0.1)


@pytest.mark.parametrize("replicas", [2, 5])
@pytest.mark.parametrize("busy", [0.3, 0.7])
def test_replicas_are_one_server_that_their_balancing_makes(replicas: int, busy: float) -> None:
    station = Station(CURVE, replicas, 2.0)
    arrivals = busy * station.highest
    stays = sorted(simulate(replicas, arrivals, SIZES["constant"], 12_000, seed=11)[2_000:])
    assert mean_time(station, arrivals) == pytest.approx(sum(stays) / len(stays), rel=0.1)
    simulated = stays[round(0.95 * len(stays))]
    assert quantile_time(station, arrivals, 2.0, 0.95) == pytest.approx(simulated, rel=0.2)


def test_a_server_of_one_job_at_a_time_is_the_textbook_queue() -> None:
    station = Station(Curve(((1, 1.0),)), 1, 1.0)
    assert occupancy(station, 0.5)[:4] == pytest.approx([0.5, 0.25, 0.125, 0.0625])
    assert mean_time(station, 0.5) == pytest.approx(2.0)


def test_more_than_a_tier_can_do_has_no_law() -> None:
    with pytest.raises(ValueError, match="more than"):
        occupancy(Station(CURVE, 2, 2.0), 61.0)


def simulate_loop(stations: list[Station], in_flight: int, rounds: int, seed: int) -> float:
    """Jobs per second of a closed loop with exponential work at each station."""
    rng = random.Random(seed)
    counts = [in_flight, *(0 for _ in stations[1:])]
    now, done = 0.0, 0
    while done < rounds:
        rates = [station.completions(count) for station, count in zip(stations, counts, strict=True)]
        now += rng.expovariate(sum(rates))
        (at,) = rng.choices(range(len(stations)), rates)
        counts[at] -= 1
        counts[(at + 1) % len(stations)] += 1
        done += at == len(stations) - 1
    return done / now


@pytest.mark.parametrize("replicas", [(1, 1, 1), (1, 3, 2)])
@pytest.mark.parametrize("in_flight", [1, 8, 40])
def test_a_loop_is_as_fast_as_its_simulation(replicas: tuple[int, int, int], in_flight: int) -> None:
    curves = (Curve(((1, 25.0),)), CURVE, Curve(((1, 8.0), (8, 40.0))))
    stations = [Station(curve, count, 2.0) for curve, count in zip(curves, replicas, strict=True)]
    simulated = simulate_loop(stations, in_flight, 12_000, seed=3)
    assert closed_rate(stations, in_flight) == pytest.approx(simulated, rel=0.03)


def test_a_curve_is_proportional_before_its_first_point_and_never_falls() -> None:
    curve = Curve(((8, 80.0), (16, 100.0), (32, 60.0)))
    assert [curve.rate(jobs) for jobs in (0, 4, 8, 12, 16, 24, 32, 99)] == [0, 40, 80, 90, 100, 100, 100, 100]
    assert curve.highest == 100
