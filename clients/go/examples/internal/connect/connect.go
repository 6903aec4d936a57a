// Package connect gives the examples their flags for reaching a server.
package connect

import (
	"crypto/tls"
	"crypto/x509"
	"flag"
	"fmt"
	"os"

	tandem "github.com/tandem-asr/tandem/clients/go"
)

// Flags are -target, -api-key, -ca, -cert and -key.
type Flags struct {
	target, apiKey, ca, cert, key *string
}

// Register adds the flags to the command line.
func Register() *Flags {
	return &Flags{
		target: flag.String("target", "localhost:50051", "host:port of the gateway"),
		apiKey: flag.String("api-key", os.Getenv("TANDEM_API_KEY"), "key to send with every call"),
		ca:     flag.String("ca", "", "certificate authority of the server, PEM; turns TLS on"),
		cert:   flag.String("cert", "", "own certificate for mutual TLS, PEM"),
		key:    flag.String("key", "", "its private key, PEM"),
	}
}

// Dial makes the client that the flags ask for.
func (f *Flags) Dial() (*tandem.Client, error) {
	var opts []tandem.Option
	if *f.apiKey != "" {
		opts = append(opts, tandem.WithAPIKey(*f.apiKey))
	}
	if *f.ca != "" {
		config, err := f.tls()
		if err != nil {
			return nil, err
		}
		opts = append(opts, tandem.WithTLS(config))
	}
	return tandem.New(*f.target, opts...)
}

func (f *Flags) tls() (*tls.Config, error) {
	pem, err := os.ReadFile(*f.ca)
	if err != nil {
		return nil, err
	}
	config := &tls.Config{RootCAs: x509.NewCertPool(), MinVersion: tls.VersionTLS12}
	if !config.RootCAs.AppendCertsFromPEM(pem) {
		return nil, fmt.Errorf("%s holds no certificate", *f.ca)
	}
	if *f.cert != "" {
		pair, err := tls.LoadX509KeyPair(*f.cert, *f.key)
		if err != nil {
			return nil, err
		}
		config.Certificates = []tls.Certificate{pair}
	}
	return config, nil
}
