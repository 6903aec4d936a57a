"""`tandem health`: whether a tier takes calls."""

from __future__ import annotations

import argparse
import contextlib
import time
from typing import Any

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

from tandem.access import Access
from tandem.cli.access import access_of, add_access_flags
from tandem.errors import DeadlineExceeded, Unavailable
from tandem.rpc.status import from_rpc_error

_SERVING = int(health_pb2.HealthCheckResponse.SERVING)
_CHECK_SECONDS = 5.0
_PAUSE_SECONDS = 0.2


def add_parser(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    parser = commands.add_parser("health", help="tell whether a tier takes calls; exits with 1 when not")
    parser.add_argument("target", help="gRPC address of a gateway, encoder or decoder")
    parser.add_argument(
        "--service", default="", help='"liveness", or a service\'s name; unset asks for readiness'
    )
    parser.add_argument("--wait", type=float, default=0.0, help="seconds to wait until it does")
    add_access_flags(parser)
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Print SERVING or NOT_SERVING."""
    access, until = access_of(options), time.monotonic() + options.wait
    while True:
        try:
            status = check(options.target, options.service, access)
            if status == _SERVING or time.monotonic() > until:
                break
        except (Unavailable, DeadlineExceeded):
            if time.monotonic() > until:
                raise
        time.sleep(_PAUSE_SECONDS)
    print(health_pb2.HealthCheckResponse.ServingStatus.Name(status))
    return 0 if status == _SERVING else 1


def check(target: str, service: str, access: Access) -> int:
    """The value of ServingStatus that the server reports. Raises TandemError when it says nothing."""
    with contextlib.closing(access.channel(target, ())) as channel:
        stub: Any = health_pb2_grpc.HealthStub(channel)
        try:
            answer = stub.Check(health_pb2.HealthCheckRequest(service=service), timeout=_CHECK_SECONDS)
        except grpc.RpcError as error:
            raise from_rpc_error(error) from error
    return int(answer.status)
