// Command recognize transcribes recordings, each in one call.
//
//	recognize -target localhost:50051 -language en meeting.flac
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"strings"
	"time"

	tandem "github.com/tandem-asr/tandem/clients/go"
	"github.com/tandem-asr/tandem/clients/go/examples/internal/connect"
	asrv1 "github.com/tandem-asr/tandem/clients/go/gen/tandem/asr/v1"
	"google.golang.org/protobuf/encoding/protojson"
)

func main() {
	server := connect.Register()
	language := flag.String("language", "", "of the recordings; unset lets the model decide")
	hotwords := flag.String("hotwords", "", "words to expect, separated by commas")
	tokens := flag.Uint("max-new-tokens", 0, "upper bound for one segment; 0 is scaled to its length")
	timeout := flag.Duration("timeout", tandem.Deadline(time.Hour), "for one recording")
	asJSON := flag.Bool("json", false, "print the whole answer, one line each")
	flag.Parse()

	config := &asrv1.RecognitionConfig{}
	if *language != "" {
		config.Language = language
	}
	if *hotwords != "" {
		config.Hotwords = strings.Split(*hotwords, ",")
	}
	if *tokens > 0 {
		limit := uint32(*tokens)
		config.MaxNewTokens = &limit
	}
	client, err := server.Dial()
	if err == nil {
		defer client.Close()
		err = checkReady(client)
	}
	for _, path := range flag.Args() {
		if err == nil {
			err = recognize(client, path, config, *timeout, *asJSON)
		}
	}
	if err != nil {
		report(err)
		os.Exit(1)
	}
}

func checkReady(client *tandem.Client) error {
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	ready, err := client.Ready(ctx)
	if err == nil && !ready {
		err = errors.New("the server is not ready")
	}
	return err
}

func recognize(
	client *tandem.Client, path string, config *asrv1.RecognitionConfig, timeout time.Duration, asJSON bool,
) error {
	recording, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(context.Background(), timeout)
	defer cancel()
	answer, err := client.Recognize(ctx, recording, config)
	if err != nil {
		return err
	}
	if asJSON {
		fmt.Println(protojson.MarshalOptions{}.Format(answer))
		return nil
	}
	for _, segment := range answer.Segments {
		fmt.Printf("%8.2f %8.2f  %s\n",
			segment.Start.AsDuration().Seconds(), segment.End.AsDuration().Seconds(), segment.Text)
	}
	return nil
}

// report prints what the server's details say about an error.
func report(err error) {
	fmt.Fprintln(os.Stderr, err)
	var e *tandem.Error
	if !errors.As(err, &e) {
		return
	}
	fmt.Fprintln(os.Stderr, "reason:", e.Reason)
	for _, v := range e.Violations {
		fmt.Fprintf(os.Stderr, "field %s: %s\n", v.Field, v.Description)
	}
	if e.RetryAfter > 0 {
		fmt.Fprintln(os.Stderr, "try again after", e.RetryAfter)
	}
}
