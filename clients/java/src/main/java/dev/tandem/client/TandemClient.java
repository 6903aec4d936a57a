package dev.tandem.client;

import com.google.protobuf.UnsafeByteOperations;
import dev.tandem.asr.v1.AsrServiceGrpc;
import dev.tandem.asr.v1.GetCapabilitiesRequest;
import dev.tandem.asr.v1.GetCapabilitiesResponse;
import dev.tandem.asr.v1.RecognitionConfig;
import dev.tandem.asr.v1.RecognizeRequest;
import dev.tandem.asr.v1.RecognizeResponse;
import io.grpc.Channel;
import io.grpc.ChannelCredentials;
import io.grpc.ClientInterceptor;
import io.grpc.Grpc;
import io.grpc.InsecureChannelCredentials;
import io.grpc.ManagedChannel;
import io.grpc.ManagedChannelBuilder;
import io.grpc.Metadata;
import io.grpc.StatusRuntimeException;
import io.grpc.TlsChannelCredentials;
import io.grpc.health.v1.HealthCheckRequest;
import io.grpc.health.v1.HealthCheckResponse;
import io.grpc.health.v1.HealthGrpc;
import io.grpc.stub.MetadataUtils;
import java.io.File;
import java.io.IOException;
import java.time.Duration;
import java.util.List;
import java.util.Map;
import java.util.concurrent.TimeUnit;
import java.util.function.Consumer;

/**
 * A connection to one server, or to all servers behind one name. Thread safe.
 *
 * <pre>{@code
 * try (TandemClient client = TandemClient.connect("localhost:50051")) {
 *   System.out.println(client.recognize(recording, config, TandemClient.deadline(length)).getText());
 * }
 * }</pre>
 */
public final class TandemClient implements AutoCloseable {
  private static final int MAX_RECEIVE_BYTES = 64 << 20;
  private static final String SERVICE = AsrServiceGrpc.SERVICE_NAME;

  private final ManagedChannel channel;
  private final AsrServiceGrpc.AsrServiceBlockingStub blocking;
  private final AsrServiceGrpc.AsrServiceStub async;
  private final HealthGrpc.HealthBlockingStub health;

  private TandemClient(Builder builder) {
    ManagedChannelBuilder<?> channels =
        Grpc.newChannelBuilder(builder.target, builder.credentials)
            .maxInboundMessageSize(MAX_RECEIVE_BYTES)
            .keepAliveTime(30, TimeUnit.SECONDS)
            .keepAliveTimeout(10, TimeUnit.SECONDS)
            .keepAliveWithoutCalls(true)
            .defaultServiceConfig(serviceConfig())
            .enableRetry();
    if (!builder.apiKey.isEmpty()) {
      channels.intercept(bearer(builder.apiKey));
    }
    builder.customize.accept(channels);
    channel = channels.build();
    blocking = AsrServiceGrpc.newBlockingStub(channel);
    async = AsrServiceGrpc.newStub(channel);
    health = HealthGrpc.newBlockingStub(channel);
  }

  /** A client without encryption of {@code host:port}, or {@code dns:///name:port} for all its addresses. */
  public static TandemClient connect(String target) {
    return builder(target).build();
  }

  public static Builder builder(String target) {
    return new Builder(target);
  }

  /** The least time to give the recognition of a recording of this length. */
  public static Duration deadline(Duration recording) {
    return Duration.ofSeconds(10).plus(recording.dividedBy(10));
  }

  /**
   * Transcribes one recording in its container (wav, flac, mp3, ogg, webm, m4a ...). The bytes must not
   * be changed during the call.
   *
   * @throws TandemException with the server's details
   */
  public RecognizeResponse recognize(byte[] recording, RecognitionConfig config, Duration timeout) {
    RecognizeRequest request =
        RecognizeRequest.newBuilder()
            .setConfig(config)
            .setAudio(UnsafeByteOperations.unsafeWrap(recording))
            .build();
    try {
      return blocking.withDeadlineAfter(timeout.toNanos(), TimeUnit.NANOSECONDS).recognize(request);
    } catch (StatusRuntimeException failure) {
      throw TandemException.of(failure);
    }
  }

  /** Opens a live session. */
  public LiveStream stream(LiveStream.Options options) {
    return new LiveStream(async, options);
  }

  /** The connection, for stubs of other services: {@code BatchServiceGrpc.newStub(client.channel())}. */
  public Channel channel() {
    return channel;
  }

  /** What the server can do and its limits. */
  public GetCapabilitiesResponse capabilities(Duration timeout) {
    try {
      return blocking
          .withDeadlineAfter(timeout.toNanos(), TimeUnit.NANOSECONDS)
          .getCapabilities(GetCapabilitiesRequest.getDefaultInstance());
    } catch (StatusRuntimeException failure) {
      throw TandemException.of(failure);
    }
  }

  /** Whether the server wants requests; a TandemException when it cannot be asked. */
  public boolean ready(Duration timeout) {
    HealthCheckRequest request = HealthCheckRequest.newBuilder().setService(SERVICE).build();
    try {
      return health.withDeadlineAfter(timeout.toNanos(), TimeUnit.NANOSECONDS).check(request).getStatus()
          == HealthCheckResponse.ServingStatus.SERVING;
    } catch (StatusRuntimeException failure) {
      throw TandemException.of(failure);
    }
  }

  @Override
  public void close() {
    channel.shutdownNow();
  }

  /** Each call goes to the next address; a recording that no server has begun is tried again. */
  private static Map<String, ?> serviceConfig() {
    Map<String, ?> retry =
        Map.of(
            "maxAttempts", 4.0,
            "initialBackoff", "0.1s",
            "maxBackoff", "2s",
            "backoffMultiplier", 2.0,
            "retryableStatusCodes", List.of("UNAVAILABLE"));
    List<?> names =
        List.of(
            Map.of("service", SERVICE, "method", "Recognize"),
            Map.of("service", SERVICE, "method", "GetCapabilities"));
    return Map.of(
        "loadBalancingConfig", List.of(Map.of("round_robin", Map.of())),
        "methodConfig", List.of(Map.of("name", names, "retryPolicy", retry)));
  }

  private static ClientInterceptor bearer(String key) {
    Metadata headers = new Metadata();
    headers.put(Metadata.Key.of("authorization", Metadata.ASCII_STRING_MARSHALLER), "Bearer " + key);
    return MetadataUtils.newAttachHeadersInterceptor(headers);
  }

  /** How to connect. */
  public static final class Builder {
    private final String target;
    private ChannelCredentials credentials = InsecureChannelCredentials.create();
    private String apiKey = "";
    private Consumer<ManagedChannelBuilder<?>> customize = channel -> {};

    private Builder(String target) {
      this.target = target;
    }

    /** Sends the key with every call. */
    public Builder apiKey(String key) {
      this.apiKey = key;
      return this;
    }

    /** TLS with the server's certificate authority, a PEM file. */
    public Builder tls(File authority) throws IOException {
      this.credentials = TlsChannelCredentials.newBuilder().trustManager(authority).build();
      return this;
    }

    /** Mutual TLS: PEM files, the key in PKCS#8. */
    public Builder mutualTls(File authority, File certificate, File key) throws IOException {
      this.credentials =
          TlsChannelCredentials.newBuilder()
              .trustManager(authority)
              .keyManager(certificate, key)
              .build();
      return this;
    }

    /** Any other setting of the channel, applied last. */
    public Builder channel(Consumer<ManagedChannelBuilder<?>> customize) {
      this.customize = customize;
      return this;
    }

    public TandemClient build() {
      return new TandemClient(this);
    }
  }
}
