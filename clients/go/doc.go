// Package tandem is the Go client of a Tandem speech recognition server.
//
// A Client recognizes recordings in one call and opens live sessions:
//
//	client, err := tandem.New("localhost:50051")
//	...
//	ctx, cancel := context.WithTimeout(ctx, tandem.Deadline(length))
//	answer, err := client.Recognize(ctx, recording, &asrv1.RecognitionConfig{})
//
// A Stream survives lost connections: it keeps what the server has not confirmed, connects again with
// the session's resume token, and goes on where the server stopped hearing. Every final arrives once.
//
// Errors are *Error where the server sent details: what was wrong with which field, when to try again.
package tandem
