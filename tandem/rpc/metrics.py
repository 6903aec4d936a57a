"""Prometheus metrics of every tier: requests by method and outcome, and the endpoint that shows them.

Names are listed in docs/metrics.md; what is particular to one tier is defined in that tier.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable, Iterator

import grpc
from prometheus_client import REGISTRY, Counter, Gauge, Histogram, start_http_server
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from tandem.errors import TandemError

LATENCY = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0)
"""Bucket bounds in seconds, from one hop to a long file."""

_REQUESTS = Counter("tandem_requests", "Calls by method and gRPC status code.", ("method", "code"))
_SECONDS = Histogram("tandem_request_seconds", "Duration of calls.", ("method",), buckets=LATENCY)
_OPEN = Gauge("tandem_open_requests", "Calls being answered.", ("method",))


@contextlib.contextmanager
def measured(method: str) -> Iterator[None]:
    """Count the block as one call of `method`, whatever comes of it."""
    started, code = time.perf_counter(), "OK"
    _OPEN.labels(method).inc()
    try:
        yield
    except BaseException as error:
        code = _code(error)
        raise
    finally:
        _OPEN.labels(method).dec()
        _REQUESTS.labels(method, code).inc()
        _SECONDS.labels(method).observe(time.perf_counter() - started)


def _code(error: BaseException) -> str:
    if isinstance(error, TandemError):
        return error.code.name
    if isinstance(error, grpc.RpcError) and isinstance(error, grpc.Call):
        return str(error.code().name)
    left = isinstance(error, asyncio.CancelledError | GeneratorExit)
    return grpc.StatusCode.CANCELLED.name if left else grpc.StatusCode.INTERNAL.name


class Snapshot(Collector):
    """Gauges, and counters (`..._total`), read when they are asked for.

    `read` gives a value for each name, or None for none at all.
    """

    def __init__(self, help_texts: dict[str, str], read: Callable[[], dict[str, float] | None]) -> None:
        self._help, self._read = help_texts, read

    def describe(self) -> Iterator[Metric]:
        for name in self._help:
            yield self._family(name)

    def collect(self) -> Iterator[Metric]:
        values = self._read() or {}
        for name, value in values.items():
            yield self._family(name, value)

    def _family(self, name: str, value: float | None = None) -> Metric:
        kind = CounterMetricFamily if name.endswith("_total") else GaugeMetricFamily
        return kind(name, self._help[name], value)


@contextlib.contextmanager
def snapshot(help_texts: dict[str, str], read: Callable[[], dict[str, float] | None]) -> Iterator[None]:
    """The gauges exist while the context is open. `read` is called from the endpoint's thread."""
    collector = Snapshot(help_texts, read)
    REGISTRY.register(collector)
    try:
        yield
    finally:
        REGISTRY.unregister(collector)


@contextlib.contextmanager
def endpoint(port: int, host: str = "0.0.0.0") -> Iterator[None]:
    """`/metrics` on this port while the context is open; nothing when the port is 0. OSError when taken."""
    if not port:
        yield
        return
    server, thread = start_http_server(port, host)
    try:
        yield
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
