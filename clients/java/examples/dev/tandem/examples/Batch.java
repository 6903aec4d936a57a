package dev.tandem.examples;

import com.google.protobuf.ByteString;
import com.google.protobuf.util.JsonFormat;
import com.google.rpc.ErrorInfo;
import dev.tandem.asr.v1.BatchRecognizeRequest;
import dev.tandem.asr.v1.BatchRecognizeResponse;
import dev.tandem.asr.v1.BatchRecording;
import dev.tandem.asr.v1.BatchResult;
import dev.tandem.asr.v1.BatchServiceGrpc;
import dev.tandem.asr.v1.BatchStart;
import dev.tandem.asr.v1.DeleteBatchRequest;
import dev.tandem.asr.v1.WatchBatchRequest;
import dev.tandem.asr.v1.WatchBatchResponse;
import dev.tandem.client.TandemClient;
import io.grpc.StatusRuntimeException;
import io.grpc.stub.ClientCallStreamObserver;
import io.grpc.stub.ClientResponseObserver;
import java.io.InputStream;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.Iterator;
import java.util.List;
import java.util.concurrent.CompletableFuture;
import java.util.concurrent.ExecutionException;

/** Leaves recordings with the server and prints their results as they come: {@code meeting.flac call.wav} */
public final class Batch {
  private static final int CHUNK_BYTES = 512 * 1024;

  /** Errors carry details of these types. */
  private static final JsonFormat.Printer JSON =
      JsonFormat.printer()
          .usingTypeRegistry(
              JsonFormat.TypeRegistry.newBuilder().add(ErrorInfo.getDescriptor().getFile().getMessageTypes()).build())
          .omittingInsignificantWhitespace();

  private Batch() {}

  public static void main(String[] arguments) throws Exception {
    Arguments flags = new Arguments(arguments);
    try (TandemClient client = flags.connect()) {
      String id = upload(BatchServiceGrpc.newStub(client.channel()), flags.files);
      // From here on the server works by itself: any process that knows the id can ask.
      BatchServiceGrpc.BatchServiceBlockingStub batches = BatchServiceGrpc.newBlockingStub(client.channel());
      Iterator<WatchBatchResponse> events =
          batches.watchBatch(WatchBatchRequest.newBuilder().setBatchId(id).build());
      while (events.hasNext()) {
        WatchBatchResponse event = events.next();
        if (event.hasResult()) {
          print(event.getResult(), flags);
        }
      }
      batches.deleteBatch(DeleteBatchRequest.newBuilder().setBatchId(id).build());
    } catch (StatusRuntimeException failure) {
      System.err.println(failure.getMessage());
      System.exit(1);
    }
  }

  private static void print(BatchResult result, Arguments flags) throws Exception {
    if (flags.has("json")) {
      System.out.println(JSON.print(result));
    } else if (result.hasError()) {
      System.out.printf("%s: %s%n", result.getKey(), result.getError().getMessage());
    } else {
      System.out.printf("%s: %s%n", result.getKey(), result.getResponse().getText());
    }
  }

  /** Sends the recordings, known by their paths, one after the other. */
  private static String upload(BatchServiceGrpc.BatchServiceStub batches, List<String> files) throws Exception {
    Upload upload = new Upload();
    batches.batchRecognize(upload);
    upload.send(BatchRecognizeRequest.newBuilder().setStart(BatchStart.getDefaultInstance()).build());
    for (String file : files) {
      BatchRecording recording = BatchRecording.newBuilder().setKey(file).build();
      upload.send(BatchRecognizeRequest.newBuilder().setRecording(recording).build());
      try (InputStream input = Files.newInputStream(Path.of(file))) {
        for (byte[] chunk = input.readNBytes(CHUNK_BYTES);
            chunk.length > 0;
            chunk = input.readNBytes(CHUNK_BYTES)) {
          upload.send(BatchRecognizeRequest.newBuilder().setChunk(ByteString.copyFrom(chunk)).build());
        }
      }
    }
    return upload.end().getBatch().getBatchId();
  }

  /** A call that takes messages as fast as the server does. */
  private static final class Upload
      implements ClientResponseObserver<BatchRecognizeRequest, BatchRecognizeResponse> {
    private final CompletableFuture<BatchRecognizeResponse> answer = new CompletableFuture<>();
    private ClientCallStreamObserver<BatchRecognizeRequest> call;

    @Override
    public void beforeStart(ClientCallStreamObserver<BatchRecognizeRequest> call) {
      this.call = call;
      call.setOnReadyHandler(this::wake);
    }

    @Override
    public void onNext(BatchRecognizeResponse response) {
      answer.complete(response);
      wake();
    }

    @Override
    public void onError(Throwable failure) {
      answer.completeExceptionally(failure);
      wake();
    }

    @Override
    public void onCompleted() {}

    private synchronized void wake() {
      notifyAll();
    }

    synchronized void send(BatchRecognizeRequest message) throws InterruptedException {
      while (!call.isReady() && !answer.isDone()) {
        wait();
      }
      // A call that the server has ended takes nothing more: its answer says why.
      if (!answer.isDone()) {
        call.onNext(message);
      }
    }

    BatchRecognizeResponse end() throws InterruptedException, ExecutionException {
      if (!answer.isDone()) {
        call.onCompleted();
      }
      try {
        return answer.get();
      } catch (ExecutionException failure) {
        if (failure.getCause() instanceof StatusRuntimeException status) {
          throw status;
        }
        throw failure;
      }
    }
  }
}
