package tandem

import (
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// FieldViolation names a bad field of the request and says what is wrong with it.
type FieldViolation struct {
	Field, Description string
}

// Error is what the server said, details included. Use errors.As to get at it.
type Error struct {
	Code    codes.Code
	Message string
	// Reason is stable and machine readable: INVALID_AUDIO, OVERLOADED, LIMIT_EXCEEDED, ...
	Reason     string
	Metadata   map[string]string
	Violations []FieldViolation
	// RetryAfter is when to try again; 0 where the server did not say.
	RetryAfter time.Duration
	// RequestID finds the request in the server's log.
	RequestID string

	status *status.Status
}

func (e *Error) Error() string {
	return e.Code.String() + ": " + e.Message
}

// GRPCStatus lets status.FromError and status.Code see through to the gRPC status.
func (e *Error) GRPCStatus() *status.Status { return e.status }

// asError turns a gRPC error into *Error; nil stays nil.
func asError(err error) error {
	if err == nil {
		return nil
	}
	st := status.Convert(err)
	e := &Error{Code: st.Code(), Message: st.Message(), status: st}
	for _, detail := range st.Details() {
		switch d := detail.(type) {
		case *errdetails.ErrorInfo:
			e.Reason, e.Metadata = d.GetReason(), d.GetMetadata()
		case *errdetails.BadRequest:
			for _, v := range d.GetFieldViolations() {
				e.Violations = append(e.Violations, FieldViolation{v.GetField(), v.GetDescription()})
			}
		case *errdetails.RetryInfo:
			e.RetryAfter = d.GetRetryDelay().AsDuration()
		case *errdetails.RequestInfo:
			e.RequestID = d.GetRequestId()
		}
	}
	return e
}
