package dev.tandem.client;

import com.google.protobuf.util.Durations;
import dev.tandem.asr.v1.AsrServiceGrpc;
import dev.tandem.asr.v1.StreamingConfig;
import dev.tandem.asr.v1.StreamingRecognizeRequest;
import dev.tandem.asr.v1.StreamingRecognizeResponse;
import io.grpc.Status;
import io.grpc.stub.ClientCallStreamObserver;
import io.grpc.stub.ClientResponseObserver;
import java.util.concurrent.CompletableFuture;
import java.util.concurrent.ExecutionException;
import java.util.function.Consumer;

/** One connection's part of a live session: sends from the log what the server does not have. */
final class LiveCall
    implements ClientResponseObserver<StreamingRecognizeRequest, StreamingRecognizeResponse>,
        SentLog.Connection {
  private final AsrServiceGrpc.AsrServiceStub stub;
  private final SentLog log;
  private final Consumer<StreamingRecognizeResponse> deliver;
  private final CompletableFuture<Long> started = new CompletableFuture<>();
  private volatile ClientCallStreamObserver<StreamingRecognizeRequest> requests;
  private volatile Throwable failure;

  LiveCall(
      AsrServiceGrpc.AsrServiceStub stub,
      SentLog log,
      Consumer<StreamingRecognizeResponse> deliver) {
    this.stub = stub;
    this.log = log;
    this.deliver = deliver;
  }

  /** Sends until the call is over; how it ended. Interrupting cancels the call. */
  Throwable run(StreamingConfig config) throws InterruptedException {
    stub.streamingRecognize(this);
    try {
      requests.onNext(StreamingRecognizeRequest.newBuilder().setConfig(config).build());
      long position = started.get();
      SentLog.Next next = log.next(0, position, this);
      while (next != null) {
        requests.onNext(next.message());
        next = log.next(next.following(), position, this);
      }
      if (open()) {
        requests.onCompleted();
      }
      awaitEnd();
    } catch (ExecutionException ended) {
      return ended.getCause();
    } catch (IllegalStateException over) {
      awaitEnd(); // the call ended between two messages
    } catch (InterruptedException closed) {
      requests.cancel("the session was given up", closed);
      throw closed;
    }
    return failure;
  }

  boolean heard() {
    return started.isDone() && !started.isCompletedExceptionally();
  }

  @Override
  public boolean open() {
    return failure == null;
  }

  @Override
  public boolean ready() {
    return requests.isReady();
  }

  @Override
  public void beforeStart(ClientCallStreamObserver<StreamingRecognizeRequest> observer) {
    requests = observer;
    observer.setOnReadyHandler(log::wake);
  }

  @Override
  public void onNext(StreamingRecognizeResponse event) {
    long received = Durations.toNanos(event.getCursors().getReceived());
    deliver.accept(event);
    if (event.hasStarted()) {
      started.complete(received);
    }
    log.confirm(received);
  }

  @Override
  public void onError(Throwable error) {
    end(error);
  }

  @Override
  public void onCompleted() {
    end(Status.UNAVAILABLE.withDescription("the server closed the stream").asRuntimeException());
  }

  private void end(Throwable error) {
    synchronized (this) {
      failure = error;
      notifyAll();
    }
    started.completeExceptionally(error);
    log.wake();
  }

  private synchronized void awaitEnd() throws InterruptedException {
    while (failure == null) {
      wait();
    }
  }
}
