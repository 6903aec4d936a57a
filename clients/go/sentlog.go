package tandem

import (
	"context"
	"math"
	"sync"
	"time"

	asrv1 "github.com/tandem-asr/tandem/clients/go/gen/tandem/asr/v1"
	"google.golang.org/protobuf/types/known/durationpb"
)

const (
	maxAhead   = 60 * time.Second
	pieceBytes = 64 << 10
)

// entry is a message and the part of the stream it covers; commands cover none.
type entry struct {
	message    *asrv1.StreamingRecognizeRequest
	start, end time.Duration
}

// sentLog holds, in order, what the server has not confirmed: the memory that makes resuming lossless.
// A rate of 0 bytes per second means that bytes say nothing about time; then nothing can be sent again.
type sentLog struct {
	rate, width int

	mu       sync.Mutex
	entries  []entry
	dropped  int
	end      time.Duration
	received time.Duration
	closed   bool
	changed  chan struct{}
}

func newSentLog(rate, width int) *sentLog {
	return &sentLog{rate: rate, width: width, changed: make(chan struct{})}
}

func (l *sentLog) replayable() bool { return l.rate > 0 }

// add queues a message. It waits while the server is a minute of audio behind.
func (l *sentLog) add(ctx context.Context, message *asrv1.StreamingRecognizeRequest) error {
	for {
		l.mu.Lock()
		if l.rate == 0 || l.end-l.received <= maxAhead {
			l.append(message)
			l.mu.Unlock()
			return nil
		}
		changed := l.changed
		l.mu.Unlock()
		select {
		case <-changed:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

func (l *sentLog) append(message *asrv1.StreamingRecognizeRequest) {
	start := l.end
	if silence := message.GetSilence(); silence != nil {
		l.end += silence.AsDuration()
	} else if l.rate > 0 {
		l.end += time.Duration(len(message.GetAudio())) * time.Second / time.Duration(l.rate)
	}
	l.entries = append(l.entries, entry{message, start, l.end})
	l.notify()
}

// close says that nothing follows.
func (l *sentLog) close() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.closed = true
	l.notify()
}

// confirm forgets what the server has.
func (l *sentLog) confirm(position time.Duration) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if position > l.received {
		l.received = position
	}
	for l.rate > 0 && len(l.entries) > 0 && l.entries[0].end < l.received {
		l.forget()
	}
	l.notify()
}

// next returns message number at or the first kept one after it, cut to what lies behind position, and
// the number that follows. It waits for one; nil means that there is no more.
func (l *sentLog) next(
	ctx context.Context, at int, position time.Duration,
) (*asrv1.StreamingRecognizeRequest, int, error) {
	for {
		l.mu.Lock()
		if at < l.dropped {
			at = l.dropped
		}
		for at-l.dropped < len(l.entries) {
			message := l.cut(l.entries[at-l.dropped], position)
			at++
			if l.rate == 0 {
				l.forget()
			}
			if message != nil {
				l.mu.Unlock()
				return message, at, nil
			}
		}
		closed, changed := l.closed, l.changed
		l.mu.Unlock()
		if closed {
			return nil, at, nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return nil, at, ctx.Err()
		}
	}
}

// cut is the part of a message that the server does not have.
func (l *sentLog) cut(e entry, position time.Duration) *asrv1.StreamingRecognizeRequest {
	if e.start >= position || e.start == e.end {
		return e.message
	}
	if e.end <= position {
		return nil
	}
	if e.message.GetSilence() != nil {
		return silenceMessage(e.end - position)
	}
	samples := math.Round((position - e.start).Seconds() * float64(l.rate) / float64(l.width))
	return audioMessage(e.message.GetAudio()[int(samples)*l.width:])
}

func (l *sentLog) forget() {
	l.entries = l.entries[1:]
	l.dropped++
}

func (l *sentLog) notify() {
	close(l.changed)
	l.changed = make(chan struct{})
}

func audioMessage(audio []byte) *asrv1.StreamingRecognizeRequest {
	return &asrv1.StreamingRecognizeRequest{Payload: &asrv1.StreamingRecognizeRequest_Audio{Audio: audio}}
}

func silenceMessage(length time.Duration) *asrv1.StreamingRecognizeRequest {
	return &asrv1.StreamingRecognizeRequest{
		Payload: &asrv1.StreamingRecognizeRequest_Silence{Silence: durationpb.New(length)}}
}
