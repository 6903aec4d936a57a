package tandem

import (
	"context"
	"fmt"
	"io"
	"sync"
	"sync/atomic"
	"time"

	asrv1 "github.com/tandem-asr/tandem/clients/go/gen/tandem/asr/v1"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"
)

const (
	firstDelay       = 100 * time.Millisecond
	maxDelay         = 2 * time.Second
	defaultReconnect = 25 * time.Second
)

// StreamOptions says how to recognize live audio and what its samples are.
type StreamOptions struct {
	// Config is sent as it is; nil means 16 kHz, 16-bit, with interim results.
	Config *asrv1.StreamingConfig
	// Reconnect is how long a broken connection is tried again: 25 s when 0, never when negative.
	Reconnect time.Duration
}

// Stream is one live session. Send and Recv may be called from different goroutines; Recv must be
// called until it fails, or the stream closed.
type Stream struct {
	client    *Client
	ctx       context.Context
	cancel    context.CancelFunc
	config    *asrv1.StreamingConfig
	reconnect time.Duration
	log       *sentLog
	events    chan *asrv1.StreamingRecognizeResponse
	err       error // set before events is closed

	token      string
	final      *durationpb.Duration
	nextFinal  uint64
	ended      bool
	reconnects int32
}

// Stream opens a live session that ends with ctx.
func (c *Client) Stream(ctx context.Context, opts StreamOptions) *Stream {
	config := &asrv1.StreamingConfig{}
	if opts.Config != nil {
		config = proto.Clone(opts.Config).(*asrv1.StreamingConfig)
	}
	if opts.Reconnect == 0 {
		opts.Reconnect = defaultReconnect
	}
	ctx, cancel := context.WithCancel(ctx)
	rate, width := byteRate(config)
	s := &Stream{
		client: c, ctx: ctx, cancel: cancel, config: config, reconnect: opts.Reconnect,
		log: newSentLog(rate, width), events: make(chan *asrv1.StreamingRecognizeResponse),
	}
	go s.run()
	return s
}

func byteRate(config *asrv1.StreamingConfig) (rate, width int) {
	rate = 16000
	if config.SampleRateHertz != nil {
		rate = int(config.GetSampleRateHertz())
	}
	switch config.GetEncoding() {
	case asrv1.AudioEncoding_AUDIO_ENCODING_MULAW, asrv1.AudioEncoding_AUDIO_ENCODING_ALAW:
		return rate, 1
	case asrv1.AudioEncoding_AUDIO_ENCODING_CONTAINER_OPUS:
		return 0, 1
	}
	return 2 * rate, 2
}

// Send queues audio in the format of the config, whole samples only. It waits while the server is a
// minute of audio behind. The bytes must not be changed afterwards.
func (s *Stream) Send(audio []byte) error {
	if len(audio)%s.log.width != 0 {
		return fmt.Errorf("tandem: %d bytes are not whole samples", len(audio))
	}
	for len(audio) > pieceBytes {
		if err := s.log.add(s.ctx, audioMessage(audio[:pieceBytes])); err != nil {
			return err
		}
		audio = audio[pieceBytes:]
	}
	return s.log.add(s.ctx, audioMessage(audio))
}

// SendSilence queues silence without bytes.
func (s *Stream) SendSilence(length time.Duration) error {
	return s.log.add(s.ctx, silenceMessage(length))
}

// Finalize ends the running utterance now: its final follows without waiting for a pause.
func (s *Stream) Finalize() error {
	return s.log.add(s.ctx, &asrv1.StreamingRecognizeRequest{
		Payload: &asrv1.StreamingRecognizeRequest_Finalize{Finalize: &asrv1.FinalizeUtterance{}}})
}

// Update sets hotwords or language of what follows.
func (s *Stream) Update(update *asrv1.UpdateConfig) error {
	return s.log.add(s.ctx, &asrv1.StreamingRecognizeRequest{
		Payload: &asrv1.StreamingRecognizeRequest_Update{Update: update}})
}

// CloseSend says that there is no more audio: what is left is decoded, then Recv returns io.EOF.
func (s *Stream) CloseSend() { s.log.close() }

// Recv returns the next event. io.EOF follows SessionEnded; other errors are *Error.
func (s *Stream) Recv() (*asrv1.StreamingRecognizeResponse, error) {
	event, ok := <-s.events
	if !ok {
		return nil, s.err
	}
	return event, nil
}

// Reconnects counts the connections that were lost and taken up again.
func (s *Stream) Reconnects() int { return int(atomic.LoadInt32(&s.reconnects)) }

// Close gives the session up.
func (s *Stream) Close() { s.cancel() }

func (s *Stream) run() {
	defer s.cancel()
	defer close(s.events)
	delay, giveUp := firstDelay, time.Now().Add(s.reconnect)
	for {
		heard, err := s.call()
		if s.ended {
			s.err = io.EOF
			return
		}
		if heard {
			delay, giveUp = firstDelay, time.Now().Add(s.reconnect)
		}
		again := s.token != "" && s.log.replayable() && time.Now().Add(delay).Before(giveUp)
		if status.Code(err) != codes.Unavailable || !again {
			s.err = asError(err)
			return
		}
		select {
		case <-time.After(delay):
		case <-s.ctx.Done():
			s.err = asError(status.FromContextError(s.ctx.Err()).Err())
			return
		}
		if delay *= 2; delay > maxDelay {
			delay = maxDelay
		}
		atomic.AddInt32(&s.reconnects, 1)
	}
}

// call is one connection's part of the session: whether anything came, and how it ended.
func (s *Stream) call() (heard bool, err error) {
	ctx, cancel := context.WithCancel(s.ctx)
	var sending sync.WaitGroup
	defer sending.Wait()
	defer cancel()
	call, err := s.client.asr.StreamingRecognize(ctx)
	if err != nil {
		return false, err
	}
	config := proto.Clone(s.config).(*asrv1.StreamingConfig)
	if s.token != "" {
		config.ResumeToken, config.ResumeFrom = proto.String(s.token), s.final
	}
	first := &asrv1.StreamingRecognizeRequest{
		Payload: &asrv1.StreamingRecognizeRequest_Config{Config: config}}
	if err := call.Send(first); err != nil && err != io.EOF { // io.EOF: Recv has the reason
		return false, err
	}
	for {
		event, err := call.Recv()
		if err == io.EOF && !s.ended {
			err = status.Error(codes.Unavailable, "the server closed the stream")
		}
		if err != nil {
			return heard, err
		}
		heard = true
		received := event.GetCursors().GetReceived().AsDuration()
		if started := event.GetStarted(); started != nil {
			s.token = started.GetResumeToken()
			sending.Add(1)
			go func() {
				defer sending.Done()
				s.send(ctx, call, received)
			}()
		}
		s.log.confirm(received)
		if !s.deliver(event) {
			return heard, status.FromContextError(s.ctx.Err()).Err()
		}
	}
}

// send passes on what lies behind position. A failure shows in Recv.
func (s *Stream) send(
	ctx context.Context, call asrv1.AsrService_StreamingRecognizeClient, position time.Duration,
) {
	for at := 0; ; {
		message, following, err := s.log.next(ctx, at, position)
		if err != nil {
			return
		}
		if message == nil {
			_ = call.CloseSend() // always nil
			return
		}
		if call.Send(message) != nil {
			return
		}
		at = following
	}
}

// deliver hands an event to Recv unless it came before; false when the session was given up.
func (s *Stream) deliver(event *asrv1.StreamingRecognizeResponse) bool {
	if result := event.GetResult(); result.GetIsFinal() {
		if result.GetIndex() < s.nextFinal {
			return true
		}
		s.nextFinal, s.final = result.GetIndex()+1, result.GetSegment().GetEnd()
	}
	s.ended = s.ended || event.GetEnded() != nil
	select {
	case s.events <- event:
		return true
	case <-s.ctx.Done():
		return false
	}
}
