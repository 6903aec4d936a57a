"""Typed errors of every tier, each with one gRPC status, one HTTP status and one machine-readable reason.

Servers raise them; tandem.rpc.status turns them into google.rpc details and back.
"""

from __future__ import annotations

from dataclasses import dataclass

import grpc

DOMAIN = "tandem.dev"


@dataclass(frozen=True, slots=True)
class FieldViolation:
    """One bad field of a request: its path in the request message and what is wrong with it."""

    field: str
    description: str


class TandemError(Exception):
    """Base of all errors that a caller may see. `str(error)` is safe to show."""

    code: grpc.StatusCode = grpc.StatusCode.INTERNAL
    http_status: int = 500
    reason: str = "INTERNAL"

    def __init__(
        self,
        message: str,
        *,
        violations: tuple[FieldViolation, ...] = (),
        retry_after: float | None = None,
        metadata: dict[str, str] | None = None,
    ) -> None:
        """`retry_after` is in seconds; `metadata` goes into google.rpc.ErrorInfo."""
        super().__init__(message)
        self.violations = violations
        self.retry_after = retry_after
        self.metadata = metadata or {}


class InvalidRequest(TandemError):
    """The request can never succeed as it is."""

    code = grpc.StatusCode.INVALID_ARGUMENT
    http_status = 400
    reason = "INVALID_REQUEST"

    @classmethod
    def of(cls, field: str, description: str) -> InvalidRequest:
        return cls(f"{field}: {description}", violations=(FieldViolation(field, description),))


class InvalidAudio(InvalidRequest):
    """The audio cannot be decoded."""

    reason = "INVALID_AUDIO"


class LimitExceeded(TandemError):
    """Too long or too large for this deployment's limits."""

    code = grpc.StatusCode.OUT_OF_RANGE
    http_status = 413
    reason = "LIMIT_EXCEEDED"


class Overloaded(TandemError):
    """Refused before any work; try again after `retry_after` seconds."""

    code = grpc.StatusCode.RESOURCE_EXHAUSTED
    http_status = 429
    reason = "OVERLOADED"


class Unauthenticated(TandemError):
    """No API key, or an unknown one."""

    code = grpc.StatusCode.UNAUTHENTICATED
    http_status = 401
    reason = "UNAUTHENTICATED"


class CapabilityMissing(TandemError):
    """The loaded model cannot do what was asked."""

    code = grpc.StatusCode.UNIMPLEMENTED
    http_status = 501
    reason = "CAPABILITY_MISSING"


class NotFound(TandemError):
    """What the request names is not there, or not any more."""

    code = grpc.StatusCode.NOT_FOUND
    http_status = 404
    reason = "NOT_FOUND"


class AlreadyExists(TandemError):
    """What the request would make is there already."""

    code = grpc.StatusCode.ALREADY_EXISTS
    http_status = 409
    reason = "ALREADY_EXISTS"


class WrongState(TandemError):
    """What the request names is not, or no longer, in the state that it takes."""

    code = grpc.StatusCode.FAILED_PRECONDITION
    http_status = 409
    reason = "WRONG_STATE"


class ModelMismatch(TandemError):
    """Two tiers serve different checkpoints."""

    code = grpc.StatusCode.FAILED_PRECONDITION
    http_status = 503
    reason = "MODEL_MISMATCH"


class Unavailable(TandemError):
    """A tier is starting, draining or gone; try again."""

    code = grpc.StatusCode.UNAVAILABLE
    http_status = 503
    reason = "UNAVAILABLE"


class DeadlineExceeded(TandemError):
    """The caller's deadline passed."""

    code = grpc.StatusCode.DEADLINE_EXCEEDED
    http_status = 504
    reason = "DEADLINE_EXCEEDED"


class Cancelled(TandemError):
    """The caller went away."""

    code = grpc.StatusCode.CANCELLED
    http_status = 499
    reason = "CANCELLED"


class InternalError(TandemError):
    """A fault of ours; the log has the details under the request id."""
