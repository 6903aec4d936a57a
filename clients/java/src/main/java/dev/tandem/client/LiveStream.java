package dev.tandem.client;

import com.google.protobuf.ByteString;
import com.google.protobuf.Duration;
import com.google.protobuf.util.Durations;
import dev.tandem.asr.v1.AsrServiceGrpc;
import dev.tandem.asr.v1.FinalizeUtterance;
import dev.tandem.asr.v1.StreamingConfig;
import dev.tandem.asr.v1.StreamingRecognizeRequest;
import dev.tandem.asr.v1.StreamingRecognizeResponse;
import dev.tandem.asr.v1.StreamingResult;
import dev.tandem.asr.v1.UpdateConfig;
import io.grpc.Status;
import java.util.Iterator;
import java.util.NoSuchElementException;
import java.util.concurrent.BlockingQueue;
import java.util.concurrent.LinkedBlockingQueue;
import java.util.concurrent.atomic.AtomicInteger;

/**
 * One live session. Send from one thread and iterate in another; iteration ends after the {@code ended}
 * event and throws {@link TandemException} when the session fails.
 *
 * <p>A lost connection is taken up again with the session's resume token: what the server had not
 * confirmed is sent again, and every final comes once.
 */
public final class LiveStream implements Iterator<StreamingRecognizeResponse>, AutoCloseable {
  private static final long FIRST_DELAY = 100;
  private static final long MAX_DELAY = 2000;
  private static final int PIECE_BYTES = 64 << 10;

  /** How to recognize, what the samples are, and how long a broken connection is tried again. */
  public record Options(StreamingConfig config, java.time.Duration reconnect) {
    public Options(StreamingConfig config) {
      this(config, java.time.Duration.ofSeconds(25));
    }

    /** 16 kHz, 16 bit, with interim results. */
    public Options() {
      this(StreamingConfig.getDefaultInstance());
    }
  }

  /** An event, or the failure that comes instead, or neither at the end. */
  private record Item(StreamingRecognizeResponse event, TandemException failure) {}

  private final AsrServiceGrpc.AsrServiceStub stub;
  private final Options options;
  private final SentLog log;
  private final BlockingQueue<Item> items = new LinkedBlockingQueue<>();
  private final AtomicInteger reconnects = new AtomicInteger();
  private final Thread worker;
  private Item ahead;
  private String token = "";
  private Duration lastFinal = Duration.getDefaultInstance();
  private long nextFinal;
  private boolean ended;

  LiveStream(AsrServiceGrpc.AsrServiceStub stub, Options options) {
    this.stub = stub;
    this.options = options;
    this.log = logFor(options.config());
    worker = new Thread(this::work, "tandem-live");
    worker.setDaemon(true);
    worker.start();
  }

  private static SentLog logFor(StreamingConfig config) {
    int hertz = config.hasSampleRateHertz() ? config.getSampleRateHertz() : 16_000;
    return switch (config.getEncoding()) {
      case AUDIO_ENCODING_MULAW, AUDIO_ENCODING_ALAW -> new SentLog(hertz, 1);
      case AUDIO_ENCODING_CONTAINER_OPUS -> new SentLog(0, 1);
      default -> new SentLog(2 * hertz, 2);
    };
  }

  /** Queues audio in the format of the config, whole samples only. Waits while the server is far behind. */
  public void send(byte[] audio) throws InterruptedException {
    if (audio.length % log.width() != 0) {
      throw new IllegalArgumentException(audio.length + " bytes are not whole samples");
    }
    for (int first = 0; first < audio.length; first += PIECE_BYTES) {
      int size = Math.min(PIECE_BYTES, audio.length - first);
      log.add(request().setAudio(ByteString.copyFrom(audio, first, size)).build());
    }
  }

  /** Queues silence without bytes. */
  public void sendSilence(java.time.Duration length) throws InterruptedException {
    log.add(request().setSilence(Durations.fromNanos(length.toNanos())).build());
  }

  /** Ends the running utterance: its final follows without waiting for a pause. */
  public void finalizeUtterance() throws InterruptedException {
    log.add(request().setFinalize(FinalizeUtterance.getDefaultInstance()).build());
  }

  /** New hotwords or language for what follows. */
  public void update(UpdateConfig update) throws InterruptedException {
    log.add(request().setUpdate(update).build());
  }

  /** No more audio: what is left is decoded, then the iteration ends. */
  public void end() {
    log.close();
  }

  /** Connections that were lost and taken up again. */
  public int reconnects() {
    return reconnects.get();
  }

  /** Gives the session up. */
  @Override
  public void close() {
    worker.interrupt();
  }

  /** Waits for the next event. */
  @Override
  public boolean hasNext() {
    if (ahead == null) {
      try {
        ahead = items.take();
      } catch (InterruptedException interrupted) {
        Thread.currentThread().interrupt();
        throw TandemException.of(Status.CANCELLED.withCause(interrupted).asRuntimeException());
      }
    }
    if (ahead.failure() != null) {
      throw ahead.failure();
    }
    return ahead.event() != null;
  }

  @Override
  public StreamingRecognizeResponse next() {
    if (!hasNext()) {
      throw new NoSuchElementException();
    }
    StreamingRecognizeResponse event = ahead.event();
    ahead = null;
    return event;
  }

  private static StreamingRecognizeRequest.Builder request() {
    return StreamingRecognizeRequest.newBuilder();
  }

  private void work() {
    try {
      connections();
      items.add(new Item(null, null));
    } catch (TandemException failure) {
      items.add(new Item(null, failure));
    } catch (InterruptedException closed) {
      items.add(new Item(null, TandemException.of(Status.CANCELLED.asRuntimeException())));
    } finally {
      log.fail();
    }
  }

  /** One connection after another until the session has ended. */
  private void connections() throws InterruptedException {
    long delay = FIRST_DELAY;
    long giveUp = System.nanoTime() + options.reconnect().toNanos();
    while (true) {
      LiveCall call = new LiveCall(stub, log, this::deliver);
      Throwable failure = call.run(config());
      if (ended) {
        return;
      }
      if (call.heard()) {
        delay = FIRST_DELAY;
        giveUp = System.nanoTime() + options.reconnect().toNanos();
      }
      boolean lost = Status.fromThrowable(failure).getCode() == Status.Code.UNAVAILABLE;
      boolean inTime = System.nanoTime() + delay * 1_000_000 < giveUp;
      if (!lost || token.isEmpty() || !log.replayable() || !inTime) {
        throw TandemException.of(failure);
      }
      Thread.sleep(delay);
      delay = Math.min(2 * delay, MAX_DELAY);
      reconnects.incrementAndGet();
    }
  }

  private StreamingConfig config() {
    if (token.isEmpty()) {
      return options.config();
    }
    return options.config().toBuilder().setResumeToken(token).setResumeFrom(lastFinal).build();
  }

  /** Hands an event to the iterator unless it came before. */
  private void deliver(StreamingRecognizeResponse event) {
    if (event.hasStarted()) {
      token = event.getStarted().getResumeToken();
    }
    StreamingResult result = event.getResult();
    if (result.getIsFinal()) {
      if (result.getIndex() < nextFinal) {
        return;
      }
      nextFinal = result.getIndex() + 1;
      lastFinal = result.getSegment().getEnd();
    }
    ended |= event.hasEnded();
    items.add(new Item(event, null));
  }
}
