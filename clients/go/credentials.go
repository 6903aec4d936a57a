package tandem

import (
	"context"
	"net"

	"google.golang.org/grpc/credentials"
)

// plaintext is no transport security. gRPC has its own since 1.34; this one serves older releases too.
type plaintext struct{}

type plaintextInfo struct{ credentials.CommonAuthInfo }

func (plaintextInfo) AuthType() string { return "insecure" }

func unprotected() credentials.AuthInfo {
	return plaintextInfo{credentials.CommonAuthInfo{SecurityLevel: credentials.NoSecurity}}
}

func (plaintext) ClientHandshake(
	_ context.Context, _ string, conn net.Conn,
) (net.Conn, credentials.AuthInfo, error) {
	return conn, unprotected(), nil
}

func (plaintext) ServerHandshake(conn net.Conn) (net.Conn, credentials.AuthInfo, error) {
	return conn, unprotected(), nil
}

func (plaintext) Info() credentials.ProtocolInfo {
	return credentials.ProtocolInfo{SecurityProtocol: "insecure"}
}

func (plaintext) Clone() credentials.TransportCredentials { return plaintext{} }

func (plaintext) OverrideServerName(string) error { return nil }

// apiKey goes with every call as a bearer token.
type apiKey string

func (k apiKey) GetRequestMetadata(context.Context, ...string) (map[string]string, error) {
	return map[string]string{"authorization": "Bearer " + string(k)}, nil
}

// RequireTransportSecurity is false: inside a cluster a sidecar may encrypt what looks plain from here.
func (apiKey) RequireTransportSecurity() bool { return false }
