package dev.tandem.client;

import com.google.protobuf.ByteString;
import com.google.protobuf.util.Durations;
import dev.tandem.asr.v1.StreamingRecognizeRequest;
import java.util.ArrayDeque;
import java.util.Deque;
import java.util.Iterator;

/**
 * What the server has not confirmed, in order: the memory that makes resuming lossless. Positions are
 * nanoseconds of audio. A rate of 0 bytes per second means that bytes say nothing about time; then nothing
 * can be sent again.
 */
final class SentLog {
  private static final long MAX_AHEAD = 60_000_000_000L;

  /** A message and the part of the stream that it covers; commands cover none. */
  private record Entry(StreamingRecognizeRequest message, long start, long end) {}

  /** A message to send and the number of the one after it. */
  record Next(StreamingRecognizeRequest message, long following) {}

  private final int rate;
  private final int width;
  private final Deque<Entry> entries = new ArrayDeque<>();
  private long dropped;
  private long end;
  private long received;
  private boolean closed;
  private boolean failed;

  SentLog(int rate, int width) {
    this.rate = rate;
    this.width = width;
  }

  boolean replayable() {
    return rate > 0;
  }

  int width() {
    return width;
  }

  /** Queues a message; waits while the server is a minute of audio behind. False when the session is over. */
  synchronized boolean add(StreamingRecognizeRequest message) throws InterruptedException {
    while (!failed && rate > 0 && end - received > MAX_AHEAD) {
      wait();
    }
    if (failed) {
      return false;
    }
    long start = end;
    if (message.hasSilence()) {
      end += Durations.toNanos(message.getSilence());
    } else if (rate > 0) {
      end += message.getAudio().size() * 1_000_000_000L / rate;
    }
    entries.add(new Entry(message, start, end));
    notifyAll();
    return true;
  }

  /** Nothing follows. */
  synchronized void close() {
    closed = true;
    notifyAll();
  }

  /** Nobody sends any more: frees those who wait. */
  synchronized void fail() {
    failed = true;
    notifyAll();
  }

  /** Lets waiting calls of {@link #next} look at their connection again. */
  synchronized void wake() {
    notifyAll();
  }

  synchronized void confirm(long position) {
    received = Math.max(received, position);
    while (rate > 0 && !entries.isEmpty() && entries.peek().end < received) {
      forget();
    }
    notifyAll();
  }

  synchronized int kept() {
    return entries.size();
  }

  /**
   * Message number {@code at}, or the first kept one after it, cut to what lies behind {@code position};
   * waits for one. Null when there is no more, or the connection is not open any longer.
   */
  synchronized Next next(long at, long position, Connection connection) throws InterruptedException {
    long number = at;
    while (connection.open()) {
      number = Math.max(number, dropped);
      if (connection.ready() && number - dropped < entries.size()) {
        StreamingRecognizeRequest message = cut(get((int) (number - dropped)), position);
        number++;
        if (rate == 0) {
          forget();
        }
        if (message != null) {
          return new Next(message, number);
        }
      } else if (closed && number - dropped >= entries.size()) {
        return null;
      } else {
        wait();
      }
    }
    return null;
  }

  /** The connection that messages go to. */
  interface Connection {
    boolean open();

    boolean ready();
  }

  private Entry get(int index) {
    Iterator<Entry> iterator = entries.iterator();
    for (int i = 0; i < index; i++) {
      iterator.next();
    }
    return iterator.next();
  }

  private StreamingRecognizeRequest cut(Entry entry, long position) {
    if (entry.start >= position || entry.start == entry.end) {
      return entry.message;
    }
    if (entry.end <= position) {
      return null;
    }
    StreamingRecognizeRequest.Builder rest = StreamingRecognizeRequest.newBuilder();
    if (entry.message.hasSilence()) {
      return rest.setSilence(Durations.fromNanos(entry.end - position)).build();
    }
    long samples = Math.round((position - entry.start) / 1e9 * rate / width);
    ByteString audio = entry.message.getAudio();
    return rest.setAudio(audio.substring((int) samples * width)).build();
  }

  private void forget() {
    entries.remove();
    dropped++;
  }
}
