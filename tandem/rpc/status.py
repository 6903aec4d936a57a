"""Between TandemError and gRPC status: google.rpc details out, typed errors back in."""

from __future__ import annotations

import grpc
import grpc.aio
from google.protobuf import any_pb2, duration_pb2
from google.rpc import error_details_pb2, status_pb2

from tandem import errors
from tandem.errors import DOMAIN, FieldViolation, TandemError

_DETAILS_KEY = "grpc-status-details-bin"
_BROKEN_WRITE = "Internal error from Core"
"""What grpc.aio itself says of a call that ended while this side was writing to it, whatever ended it."""


def _subclasses(cls: type[TandemError]) -> list[type[TandemError]]:
    return [cls, *(deep for sub in cls.__subclasses__() for deep in _subclasses(sub))]


def to_status(error: TandemError, request_id: str = "") -> status_pb2.Status:
    """The google.rpc.Status of an error: ErrorInfo, and the other details where they apply."""
    details: list[any_pb2.Any] = []

    def add(message: object) -> None:
        packed = any_pb2.Any()
        packed.Pack(message)  # type: ignore[arg-type]
        details.append(packed)

    add(error_details_pb2.ErrorInfo(reason=error.reason, domain=DOMAIN, metadata=error.metadata))
    if error.violations:
        field = error_details_pb2.BadRequest.FieldViolation
        add(
            error_details_pb2.BadRequest(
                field_violations=[field(field=v.field, description=v.description) for v in error.violations]
            )
        )
    if error.retry_after is not None:
        delay = duration_pb2.Duration()
        delay.FromMilliseconds(round(error.retry_after * 1000))
        add(error_details_pb2.RetryInfo(retry_delay=delay))
    if request_id:
        add(error_details_pb2.RequestInfo(request_id=request_id))
    return status_pb2.Status(code=error.code.value[0], message=str(error), details=details)


def from_rpc_error(error: grpc.RpcError) -> TandemError:
    """The typed error that a peer raised, rebuilt from its status and details.

    CANCELLED without a word is Unavailable: a server that shuts down answers so to calls that it has not
    taken up yet. Calls that this side cancels end otherwise. So is the INTERNAL that grpc.aio makes of a
    connection that breaks while this side writes.
    """
    if not isinstance(error, grpc.Call | grpc.aio.AioRpcError):
        return errors.InternalError(str(error))
    code, message = error.code(), error.details() or error.code().name
    status = _status_of(error)
    if code is grpc.StatusCode.CANCELLED and message == code.name and status is None:
        return errors.Unavailable("the server is shutting down")
    if code is grpc.StatusCode.INTERNAL and message == _BROKEN_WRITE and status is None:
        return errors.Unavailable("the call broke off while it was written to")
    return _typed(code, message, status)


def from_status(status: status_pb2.Status) -> TandemError:
    """The typed error that a google.rpc.Status tells of."""
    codes = {code.value[0]: code for code in grpc.StatusCode}
    code = codes.get(status.code, grpc.StatusCode.UNKNOWN)
    return _typed(code, status.message or code.name, status)


def _typed(code: grpc.StatusCode, message: str, status: status_pb2.Status | None) -> TandemError:
    info = error_details_pb2.ErrorInfo()
    bad, retry = error_details_pb2.BadRequest(), error_details_pb2.RetryInfo()
    for detail in status.details if status is not None else ():
        for target in (info, bad, retry):
            if detail.Is(target.DESCRIPTOR):
                detail.Unpack(target)
    cls = _class_for(info.reason, code)
    return cls(
        message,
        violations=tuple(FieldViolation(v.field, v.description) for v in bad.field_violations),
        retry_after=retry.retry_delay.ToMilliseconds() / 1000 if retry.HasField("retry_delay") else None,
        metadata=dict(info.metadata),
    )


def _status_of(error: grpc.Call | grpc.aio.AioRpcError) -> status_pb2.Status | None:
    for key, value in error.trailing_metadata() or ():
        if key == _DETAILS_KEY and isinstance(value, bytes):
            return status_pb2.Status.FromString(value)
    return None


def _class_for(reason: str, code: grpc.StatusCode) -> type[TandemError]:
    known = _subclasses(TandemError)
    by_reason = {cls.reason: cls for cls in known}
    if reason in by_reason:
        return by_reason[reason]
    by_code: dict[grpc.StatusCode, type[TandemError]] = {}
    for cls in known:
        by_code.setdefault(cls.code, cls)
    return by_code.get(code, errors.InternalError)
