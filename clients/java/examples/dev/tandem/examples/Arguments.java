package dev.tandem.examples;

import dev.tandem.client.TandemClient;
import java.io.File;
import java.io.IOException;
import java.time.Duration;
import java.util.ArrayList;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.Set;

/** The command line of the examples: {@code -name value} and, for {@code -json}, {@code -name} alone. */
final class Arguments {
  private static final Set<String> SWITCHES = Set.of("json");
  private final Map<String, String> flags = new HashMap<>();
  final List<String> files = new ArrayList<>();

  Arguments(String[] arguments) {
    for (int i = 0; i < arguments.length; i++) {
      String argument = arguments[i];
      if (!argument.startsWith("-") || argument.equals("-")) {
        files.add(argument);
        continue;
      }
      String name = argument.replaceFirst("^-+", "");
      flags.put(name, SWITCHES.contains(name) ? "true" : arguments[++i]);
    }
  }

  String text(String name, String otherwise) {
    return flags.getOrDefault(name, otherwise);
  }

  boolean has(String name) {
    return flags.containsKey(name);
  }

  /** A time such as 5ms, 30s or 10m. */
  Duration duration(String name, Duration otherwise) {
    String value = flags.get(name);
    if (value == null) {
      return otherwise;
    }
    if (value.endsWith("ms")) {
      return Duration.ofMillis(Long.parseLong(value.substring(0, value.length() - 2)));
    }
    return Duration.parse("PT" + value);
  }

  /** The client that -target, -api-key, -ca, -cert and -key ask for. */
  TandemClient connect() throws IOException {
    TandemClient.Builder client = TandemClient.builder(text("target", "localhost:50051"));
    client.apiKey(text("api-key", System.getenv().getOrDefault("TANDEM_API_KEY", "")));
    if (has("cert")) {
      client.mutualTls(new File(text("ca", "")), new File(text("cert", "")), new File(text("key", "")));
    } else if (has("ca")) {
      client.tls(new File(text("ca", "")));
    }
    return client.build();
  }
}
