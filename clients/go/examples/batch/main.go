// Command batch leaves recordings with the server and prints their results as they come.
//
//	batch -target localhost:50051 meeting.flac call.wav
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"

	"github.com/tandem-asr/tandem/clients/go/examples/internal/connect"
	asrv1 "github.com/tandem-asr/tandem/clients/go/gen/tandem/asr/v1"
	"google.golang.org/protobuf/encoding/protojson"
)

const chunkBytes = 512 << 10

func main() {
	server := connect.Register()
	asJSON := flag.Bool("json", false, "print whole results, one line each")
	flag.Parse()

	client, err := server.Dial()
	if err == nil {
		defer client.Close()
		err = run(context.Background(), client.Batches(), flag.Args(), *asJSON)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func run(ctx context.Context, batches asrv1.BatchServiceClient, paths []string, asJSON bool) error {
	id, err := upload(ctx, batches, paths)
	if err != nil {
		return err
	}
	// From here on the server works by itself: any process that knows the id can ask.
	events, err := batches.WatchBatch(ctx, &asrv1.WatchBatchRequest{BatchId: id})
	if err != nil {
		return err
	}
	for {
		event, err := events.Recv()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return err
		}
		if result := event.GetResult(); result != nil {
			show(result, asJSON)
		}
	}
	_, err = batches.DeleteBatch(ctx, &asrv1.DeleteBatchRequest{BatchId: id})
	return err
}

// upload sends the recordings, known by their paths, one after the other.
func upload(ctx context.Context, batches asrv1.BatchServiceClient, paths []string) (string, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	call, err := batches.BatchRecognize(ctx)
	if err != nil {
		return "", err
	}
	err = call.Send(&asrv1.BatchRecognizeRequest{
		Payload: &asrv1.BatchRecognizeRequest_Start{Start: &asrv1.BatchStart{}}})
	for _, path := range paths {
		if err == nil {
			err = send(call, path)
		}
	}
	// A call that the server has ended takes nothing more: its answer says why.
	if err != nil && !errors.Is(err, io.EOF) {
		return "", err
	}
	answer, err := call.CloseAndRecv()
	return answer.GetBatch().GetBatchId(), err
}

func send(call asrv1.BatchService_BatchRecognizeClient, path string) error {
	file, err := os.Open(path)
	if err != nil {
		return err
	}
	defer file.Close()
	err = call.Send(&asrv1.BatchRecognizeRequest{
		Payload: &asrv1.BatchRecognizeRequest_Recording{Recording: &asrv1.BatchRecording{Key: path}}})
	for err == nil {
		chunk := make([]byte, chunkBytes)
		var size int
		if size, err = io.ReadFull(file, chunk); size == 0 {
			if errors.Is(err, io.EOF) {
				return nil
			}
			return err
		}
		err = call.Send(&asrv1.BatchRecognizeRequest{
			Payload: &asrv1.BatchRecognizeRequest_Chunk{Chunk: chunk[:size]}})
	}
	return err
}

func show(result *asrv1.BatchResult, asJSON bool) {
	switch {
	case asJSON:
		fmt.Println(protojson.MarshalOptions{}.Format(result))
	case result.GetError() != nil:
		fmt.Printf("%s: %s\n", result.Key, result.GetError().Message)
	default:
		fmt.Printf("%s: %s\n", result.Key, result.GetResponse().Text)
	}
}
