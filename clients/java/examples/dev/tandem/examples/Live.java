package dev.tandem.examples;

import com.google.protobuf.InvalidProtocolBufferException;
import com.google.protobuf.util.JsonFormat;
import dev.tandem.asr.v1.RecognitionConfig;
import dev.tandem.asr.v1.StreamingConfig;
import dev.tandem.asr.v1.StreamingRecognizeResponse;
import dev.tandem.asr.v1.StreamingResult;
import dev.tandem.client.LiveStream;
import dev.tandem.client.TandemClient;
import dev.tandem.client.TandemException;
import java.io.FileInputStream;
import java.io.IOException;
import java.io.InputStream;
import java.io.UncheckedIOException;

/**
 * Streams samples as a microphone would and prints what is heard, across lost connections:
 * {@code arecord -f S16_LE -r 16000 -c 1 -t raw | java ... Live -target localhost:50051 -}
 */
public final class Live {
  private static final int FRAME_BYTES = 3200;

  private Live() {}

  public static void main(String[] arguments) throws Exception {
    Arguments flags = new Arguments(arguments);
    RecognitionConfig.Builder recognition = RecognitionConfig.newBuilder();
    if (flags.has("language")) {
      recognition.setLanguage(flags.text("language", ""));
    }
    StreamingConfig config = StreamingConfig.newBuilder().setRecognition(recognition).build();
    String file = flags.files.get(0);
    try (InputStream input = file.equals("-") ? System.in : new FileInputStream(file);
        TandemClient client = flags.connect();
        LiveStream live = client.stream(new LiveStream.Options(config))) {
      Thread sending = new Thread(() -> send(live, input), "microphone");
      sending.start();
      while (live.hasNext()) {
        show(live.next(), flags.has("json"));
      }
      sending.join();
      System.err.println("reconnects: " + live.reconnects());
    } catch (TandemException failure) {
      System.err.println(failure.getMessage());
      System.exit(1);
    }
  }

  private static void send(LiveStream live, InputStream input) {
    try {
      byte[] samples = input.readNBytes(FRAME_BYTES);
      while (samples.length > 1) {
        live.send(samples.length % 2 == 0 ? samples : java.util.Arrays.copyOf(samples, samples.length - 1));
        samples = input.readNBytes(FRAME_BYTES);
      }
    } catch (IOException failure) {
      throw new UncheckedIOException(failure);
    } catch (InterruptedException over) {
      Thread.currentThread().interrupt();
    } finally {
      live.end();
    }
  }

  private static void show(StreamingRecognizeResponse event, boolean json)
      throws InvalidProtocolBufferException {
    if (json) {
      System.out.println(JsonFormat.printer().omittingInsignificantWhitespace().print(event));
      return;
    }
    StreamingResult result = event.getResult();
    if (result.getIsFinal()) {
      System.out.printf("\r%s%n", result.getSegment().getText());
    } else if (event.hasResult()) {
      System.out.printf("\r%s%s", result.getFixedText(), result.getUnfixedText());
    }
  }
}
