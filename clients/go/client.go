package tandem

import (
	"context"
	"crypto/tls"
	"time"

	asrv1 "github.com/tandem-asr/tandem/clients/go/gen/tandem/asr/v1"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/keepalive"
)

const (
	maxSendBytes    = 1 << 30
	maxReceiveBytes = 64 << 20
	keepalivePeriod = 30 * time.Second
	keepaliveWait   = 10 * time.Second
)

// Each call goes to the next address of a name that resolves to several. A recording that no server
// has begun is tried again; a live stream has its own way, see Stream.
const serviceConfig = `{
  "loadBalancingConfig": [{"round_robin": {}}],
  "methodConfig": [{
    "name": [
      {"service": "tandem.asr.v1.AsrService", "method": "Recognize"},
      {"service": "tandem.asr.v1.AsrService", "method": "GetCapabilities"}
    ],
    "retryPolicy": {
      "maxAttempts": 4, "initialBackoff": "0.1s", "maxBackoff": "2s", "backoffMultiplier": 2,
      "retryableStatusCodes": ["UNAVAILABLE"]
    }
  }]
}`

// Client is a connection to one server, or to all servers behind one name. It is safe for concurrent use.
type Client struct {
	conn   *grpc.ClientConn
	asr    asrv1.AsrServiceClient
	batch  asrv1.BatchServiceClient
	health healthpb.HealthClient
}

type options struct {
	tls  *tls.Config
	key  string
	dial []grpc.DialOption
}

// Option changes how New connects.
type Option func(*options)

// WithTLS encrypts the connection. A client certificate in config makes it mutual.
func WithTLS(config *tls.Config) Option {
	return func(o *options) { o.tls = config }
}

// WithAPIKey sends the key with every call.
func WithAPIKey(key string) Option {
	return func(o *options) { o.key = key }
}

// WithDialOptions passes options on to gRPC, for interceptors and the like.
func WithDialOptions(dial ...grpc.DialOption) Option {
	return func(o *options) { o.dial = append(o.dial, dial...) }
}

// New makes a client of target: "host:port", or "dns:///name:port" for all addresses of a name.
// It does not wait for the connection.
func New(target string, opts ...Option) (*Client, error) {
	var o options
	for _, opt := range opts {
		opt(&o)
	}
	transport := credentials.TransportCredentials(plaintext{})
	if o.tls != nil {
		transport = credentials.NewTLS(o.tls)
	}
	dial := []grpc.DialOption{
		grpc.WithTransportCredentials(transport),
		grpc.WithDefaultServiceConfig(serviceConfig),
		grpc.WithDefaultCallOptions(
			grpc.MaxCallSendMsgSize(maxSendBytes), grpc.MaxCallRecvMsgSize(maxReceiveBytes)),
		grpc.WithKeepaliveParams(keepalive.ClientParameters{
			Time: keepalivePeriod, Timeout: keepaliveWait, PermitWithoutStream: true}),
	}
	if o.key != "" {
		dial = append(dial, grpc.WithPerRPCCredentials(apiKey(o.key)))
	}
	conn, err := grpc.Dial(target, append(dial, o.dial...)...)
	if err != nil {
		return nil, err
	}
	return &Client{
		conn, asrv1.NewAsrServiceClient(conn), asrv1.NewBatchServiceClient(conn), healthpb.NewHealthClient(conn),
	}, nil
}

// Close ends the connection and all calls on it.
func (c *Client) Close() error { return c.conn.Close() }

// Recognize transcribes one recording in its container (wav, flac, mp3, ogg, webm, m4a ...).
// Give ctx a deadline: see Deadline.
func (c *Client) Recognize(
	ctx context.Context, recording []byte, config *asrv1.RecognitionConfig,
) (*asrv1.RecognizeResponse, error) {
	answer, err := c.asr.Recognize(ctx, &asrv1.RecognizeRequest{Config: config, Audio: recording})
	return answer, asError(err)
}

// Capabilities says what the server can do and its limits.
func (c *Client) Capabilities(ctx context.Context) (*asrv1.GetCapabilitiesResponse, error) {
	answer, err := c.asr.GetCapabilities(ctx, &asrv1.GetCapabilitiesRequest{})
	return answer, asError(err)
}

// Batches are the calls of BatchService, which works on recordings while nobody is connected. Their errors
// are gRPC's own. See examples/batch.
func (c *Client) Batches() asrv1.BatchServiceClient { return c.batch }

// Ready reports whether the server wants requests. It is an error when the server cannot be asked.
func (c *Client) Ready(ctx context.Context) (bool, error) {
	answer, err := c.health.Check(ctx, &healthpb.HealthCheckRequest{Service: "tandem.asr.v1.AsrService"})
	if err != nil {
		return false, asError(err)
	}
	return answer.Status == healthpb.HealthCheckResponse_SERVING, nil
}

// Deadline is the least time to give the recognition of a recording of this length.
func Deadline(length time.Duration) time.Duration {
	return 10*time.Second + length/10
}
