package dev.tandem.examples;

import com.google.protobuf.util.Durations;
import com.google.protobuf.util.JsonFormat;
import dev.tandem.asr.v1.RecognitionConfig;
import dev.tandem.asr.v1.RecognizeResponse;
import dev.tandem.asr.v1.Segment;
import dev.tandem.client.TandemClient;
import dev.tandem.client.TandemException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.time.Duration;
import java.util.List;

/** Transcribes recordings, each in one call: {@code -target localhost:50051 -language en meeting.flac} */
public final class Recognize {
  private Recognize() {}

  public static void main(String[] arguments) throws Exception {
    Arguments flags = new Arguments(arguments);
    RecognitionConfig.Builder config = RecognitionConfig.newBuilder();
    if (flags.has("language")) {
      config.setLanguage(flags.text("language", ""));
    }
    if (flags.has("hotwords")) {
      config.addAllHotwords(List.of(flags.text("hotwords", "").split(",")));
    }
    Duration timeout = flags.duration("timeout", TandemClient.deadline(Duration.ofHours(1)));
    try (TandemClient client = flags.connect()) {
      if (!client.ready(Duration.ofSeconds(10))) {
        throw new IllegalStateException("the server is not ready");
      }
      for (String file : flags.files) {
        print(client.recognize(Files.readAllBytes(Path.of(file)), config.build(), timeout), flags);
      }
    } catch (TandemException failure) {
      report(failure);
      System.exit(1);
    }
  }

  private static void print(RecognizeResponse answer, Arguments flags) throws Exception {
    if (flags.has("json")) {
      System.out.println(JsonFormat.printer().omittingInsignificantWhitespace().print(answer));
      return;
    }
    for (Segment segment : answer.getSegmentsList()) {
      double start = Durations.toMillis(segment.getStart()) / 1000.0;
      double end = Durations.toMillis(segment.getEnd()) / 1000.0;
      System.out.printf("%8.2f %8.2f  %s%n", start, end, segment.getText());
    }
  }

  /** Prints what the server's details say about an error. */
  private static void report(TandemException failure) {
    System.err.println(failure.getMessage());
    System.err.println("reason: " + failure.reason());
    failure.violations().forEach(v -> System.err.println("field " + v.field() + ": " + v.description()));
    failure.retryAfter().ifPresent(delay -> System.err.println("try again after " + delay));
  }
}
