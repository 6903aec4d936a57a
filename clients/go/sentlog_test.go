package tandem

import (
	"context"
	"testing"
	"time"
)

func fill(t *testing.T, l *sentLog, sizes ...int) {
	t.Helper()
	for _, size := range sizes {
		if err := l.add(context.Background(), audioMessage(make([]byte, size))); err != nil {
			t.Fatal(err)
		}
	}
}

func drain(t *testing.T, l *sentLog, position time.Duration) (total int) {
	t.Helper()
	for at := 0; ; {
		message, following, err := l.next(context.Background(), at, position)
		if err != nil {
			t.Fatal(err)
		}
		if message == nil {
			return total
		}
		total += len(message.GetAudio())
		at = following
	}
}

func TestEverythingIsSentAgainFromThePositionOn(t *testing.T) {
	l := newSentLog(32000, 2)
	fill(t, l, 3200, 3200, 3200)
	l.close()
	for position, want := range map[time.Duration]int{
		0: 9600, 50 * time.Millisecond: 8000, 150 * time.Millisecond: 4800, 300 * time.Millisecond: 0,
	} {
		if got := drain(t, l, position); got != want {
			t.Errorf("from %v: %d bytes, want %d", position, got, want)
		}
	}
}

func TestConfirmedAudioIsForgotten(t *testing.T) {
	l := newSentLog(32000, 2)
	fill(t, l, 3200, 3200, 3200)
	l.close()
	l.confirm(250 * time.Millisecond)
	if len(l.entries) != 1 {
		t.Errorf("%d entries are kept, want 1", len(l.entries))
	}
	if got := drain(t, l, 250*time.Millisecond); got != 1600 {
		t.Errorf("%d bytes, want 1600", got)
	}
}

func TestAddWaitsForAServerThatIsFarBehind(t *testing.T) {
	l := newSentLog(32000, 2)
	fill(t, l, 61*32000)
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Millisecond)
	defer cancel()
	if err := l.add(ctx, audioMessage(make([]byte, 2))); err != context.DeadlineExceeded {
		t.Fatalf("add returned %v, want it to wait", err)
	}
	go l.confirm(30 * time.Second)
	fill(t, l, 2)
}

func TestSilenceIsCutToo(t *testing.T) {
	l := newSentLog(32000, 2)
	if err := l.add(context.Background(), silenceMessage(time.Second)); err != nil {
		t.Fatal(err)
	}
	message, _, err := l.next(context.Background(), 0, 400*time.Millisecond)
	if err != nil || message.GetSilence().AsDuration() != 600*time.Millisecond {
		t.Fatalf("%v, %v: want 600 ms", message, err)
	}
}

func TestContainersAreSentOnceAndNotKept(t *testing.T) {
	l := newSentLog(0, 1)
	fill(t, l, 5000)
	l.close()
	if got := drain(t, l, 0); got != 5000 || len(l.entries) != 0 {
		t.Errorf("%d bytes sent, %d entries kept", got, len(l.entries))
	}
}
