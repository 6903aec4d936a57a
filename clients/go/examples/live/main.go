// Command live streams samples as a microphone would and prints what is heard, across lost connections.
//
//	arecord -f S16_LE -r 16000 -c 1 -t raw | live -target localhost:50051 -
//	live -target localhost:50051 -paced speech.raw
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"time"

	tandem "github.com/tandem-asr/tandem/clients/go"
	"github.com/tandem-asr/tandem/clients/go/examples/internal/connect"
	asrv1 "github.com/tandem-asr/tandem/clients/go/gen/tandem/asr/v1"
	"google.golang.org/protobuf/encoding/protojson"
)

const (
	sampleRate = 16000
	frame      = 100 * time.Millisecond
	frameBytes = sampleRate / 10 * 2
)

func main() {
	server := connect.Register()
	language := flag.String("language", "", "of the speech; unset lets the model decide")
	tokens := flag.Uint("max-new-tokens", 0, "upper bound for one segment; 0 is scaled to its length")
	paced := flag.Bool("paced", false, "send a file at the pace of speech")
	asJSON := flag.Bool("json", false, "print every event, one line each")
	flag.Parse()
	if flag.NArg() != 1 {
		fmt.Fprintln(os.Stderr, "usage: live [flags] FILE|-   (raw samples: 16 kHz, 16 bit, mono)")
		os.Exit(2)
	}
	recognition := &asrv1.RecognitionConfig{}
	if *language != "" {
		recognition.Language = language
	}
	if *tokens > 0 {
		limit := uint32(*tokens)
		recognition.MaxNewTokens = &limit
	}
	if err := run(server, flag.Arg(0), recognition, *paced, *asJSON); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func run(
	server *connect.Flags, path string, recognition *asrv1.RecognitionConfig, paced, asJSON bool,
) error {
	input := os.Stdin
	if path != "-" {
		file, err := os.Open(path)
		if err != nil {
			return err
		}
		defer file.Close()
		input = file
	}
	client, err := server.Dial()
	if err != nil {
		return err
	}
	defer client.Close()
	stream := client.Stream(context.Background(), tandem.StreamOptions{
		Config: &asrv1.StreamingConfig{Recognition: recognition}})
	defer stream.Close()
	reading := make(chan error, 1)
	go func() { reading <- send(stream, input, paced) }()
	for {
		event, err := stream.Recv()
		if err == io.EOF {
			break
		}
		if err != nil {
			return err
		}
		show(event, asJSON)
	}
	fmt.Fprintln(os.Stderr, "reconnects:", stream.Reconnects())
	return <-reading
}

func send(stream *tandem.Stream, input io.Reader, paced bool) error {
	defer stream.CloseSend()
	begin := time.Now()
	for n := 1; ; n++ {
		samples := make([]byte, frameBytes)
		got, err := io.ReadFull(input, samples)
		if sent := stream.Send(samples[:got/2*2]); sent != nil {
			return sent
		}
		if err == io.EOF || errors.Is(err, io.ErrUnexpectedEOF) {
			return nil
		}
		if err != nil {
			return err
		}
		if paced {
			time.Sleep(time.Until(begin.Add(time.Duration(n) * frame)))
		}
	}
}

func show(event *asrv1.StreamingRecognizeResponse, asJSON bool) {
	if asJSON {
		fmt.Println(protojson.MarshalOptions{}.Format(event))
		return
	}
	result := event.GetResult()
	switch {
	case result == nil:
	case result.IsFinal:
		fmt.Printf("\r%8.2f  %s\n", result.Segment.Start.AsDuration().Seconds(), result.Segment.Text)
	default:
		fmt.Printf("\r%8s  %s%s", "", result.FixedText, result.UnfixedText)
	}
}
