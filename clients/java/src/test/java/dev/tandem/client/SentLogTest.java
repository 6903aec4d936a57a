package dev.tandem.client;

import static org.junit.Assert.assertEquals;
import static org.junit.Assert.assertTrue;

import com.google.protobuf.ByteString;
import com.google.protobuf.util.Durations;
import dev.tandem.asr.v1.StreamingRecognizeRequest;
import org.junit.Test;

public class SentLogTest {
  private static final long MS = 1_000_000;
  private static final SentLog.Connection OPEN =
      new SentLog.Connection() {
        @Override
        public boolean open() {
          return true;
        }

        @Override
        public boolean ready() {
          return true;
        }
      };

  private static SentLog filled(int rate, int... sizes) throws InterruptedException {
    SentLog log = new SentLog(rate, 2);
    for (int size : sizes) {
      ByteString audio = ByteString.copyFrom(new byte[size]);
      assertTrue(log.add(StreamingRecognizeRequest.newBuilder().setAudio(audio).build()));
    }
    log.close();
    return log;
  }

  private static int sentFrom(SentLog log, long position) throws InterruptedException {
    int total = 0;
    for (SentLog.Next next = log.next(0, position, OPEN); next != null; ) {
      total += next.message().getAudio().size();
      next = log.next(next.following(), position, OPEN);
    }
    return total;
  }

  @Test
  public void everythingIsSentAgainFromThePositionOn() throws InterruptedException {
    SentLog log = filled(32000, 3200, 3200, 3200);
    assertEquals(9600, sentFrom(log, 0));
    assertEquals(8000, sentFrom(log, 50 * MS));
    assertEquals(4800, sentFrom(log, 150 * MS));
    assertEquals(0, sentFrom(log, 300 * MS));
  }

  @Test
  public void confirmedAudioIsForgotten() throws InterruptedException {
    SentLog log = filled(32000, 3200, 3200, 3200);
    log.confirm(250 * MS);
    assertEquals(1, log.kept());
    assertEquals(1600, sentFrom(log, 250 * MS));
  }

  @Test
  public void silenceIsCutToo() throws InterruptedException {
    SentLog log = new SentLog(32000, 2);
    log.add(StreamingRecognizeRequest.newBuilder().setSilence(Durations.fromSeconds(1)).build());
    SentLog.Next next = log.next(0, 400 * MS, OPEN);
    assertEquals(600 * MS, Durations.toNanos(next.message().getSilence()));
  }

  @Test
  public void containersAreSentOnceAndNotKept() throws InterruptedException {
    SentLog log = filled(0, 5000);
    assertEquals(5000, sentFrom(log, 0));
    assertEquals(0, log.kept());
  }

  @Test(timeout = 10_000)
  public void aSessionThatIsOverTakesNoMoreAudio() throws InterruptedException {
    SentLog log = filled(32000, 61 * 32000);
    Thread failing = new Thread(log::fail);
    failing.start();
    assertEquals(false, log.add(StreamingRecognizeRequest.getDefaultInstance()));
    failing.join();
  }
}
