package dev.tandem.client;

import com.google.protobuf.Any;
import com.google.protobuf.InvalidProtocolBufferException;
import com.google.rpc.BadRequest;
import com.google.rpc.ErrorInfo;
import com.google.rpc.RequestInfo;
import com.google.rpc.RetryInfo;
import io.grpc.Status;
import io.grpc.protobuf.StatusProto;
import java.time.Duration;
import java.util.List;
import java.util.Map;
import java.util.Optional;

/** What the server said, details included. */
public final class TandemException extends RuntimeException {
  private static final long serialVersionUID = 1L;

  /** A bad field of the request and what is wrong with it. */
  public record FieldViolation(String field, String description) {}

  private final Status.Code code;
  private final transient ErrorInfo info;
  private final transient List<FieldViolation> violations;
  private final transient Duration retryAfter;
  private final String requestId;

  private TandemException(Throwable cause, Status status, Details details) {
    super(status.getCode() + ": " + status.getDescription(), cause);
    this.code = status.getCode();
    this.info = details.info;
    this.violations = details.violations;
    this.retryAfter = details.retryAfter;
    this.requestId = details.requestId;
  }

  /** Any failure of a call as a TandemException. */
  static TandemException of(Throwable failure) {
    if (failure instanceof TandemException known) {
      return known;
    }
    return new TandemException(failure, Status.fromThrowable(failure), Details.of(failure));
  }

  public Status.Code code() {
    return code;
  }

  /** Stable and machine readable: INVALID_AUDIO, OVERLOADED, LIMIT_EXCEEDED ...; empty without details. */
  public String reason() {
    return info.getReason();
  }

  public Map<String, String> metadata() {
    return info.getMetadataMap();
  }

  public List<FieldViolation> violations() {
    return violations;
  }

  /** When to try again, where the server said so. */
  public Optional<Duration> retryAfter() {
    return Optional.ofNullable(retryAfter);
  }

  /** Finds the request in the server's log; empty where the server sent none. */
  public String requestId() {
    return requestId;
  }

  private static final class Details {
    private ErrorInfo info = ErrorInfo.getDefaultInstance();
    private List<FieldViolation> violations = List.of();
    private Duration retryAfter;
    private String requestId = "";

    static Details of(Throwable failure) {
      Details details = new Details();
      com.google.rpc.Status status = StatusProto.fromThrowable(failure);
      if (status == null) {
        return details;
      }
      for (Any detail : status.getDetailsList()) {
        details.read(detail);
      }
      return details;
    }

    private void read(Any detail) {
      try {
        if (detail.is(ErrorInfo.class)) {
          info = detail.unpack(ErrorInfo.class);
        } else if (detail.is(BadRequest.class)) {
          violations =
              detail.unpack(BadRequest.class).getFieldViolationsList().stream()
                  .map(v -> new FieldViolation(v.getField(), v.getDescription()))
                  .toList();
        } else if (detail.is(RetryInfo.class)) {
          com.google.protobuf.Duration delay = detail.unpack(RetryInfo.class).getRetryDelay();
          retryAfter = Duration.ofSeconds(delay.getSeconds(), delay.getNanos());
        } else if (detail.is(RequestInfo.class)) {
          requestId = detail.unpack(RequestInfo.class).getRequestId();
        }
      } catch (InvalidProtocolBufferException broken) {
        throw new IllegalStateException("the server sent broken error details", broken);
      }
    }
  }
}
