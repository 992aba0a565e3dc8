package main

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"math/big"
	"os"
	"time"

	"github.com/libp2p/go-libp2p"
	"github.com/libp2p/go-libp2p/core/pnet"
	"github.com/libp2p/go-libp2p/p2p/muxer/yamux"
	"github.com/libp2p/go-libp2p/p2p/security/noise"
	libp2ptls "github.com/libp2p/go-libp2p/p2p/security/tls"
	"github.com/libp2p/go-libp2p/p2p/transport/quic"
	"github.com/libp2p/go-libp2p/p2p/transport/tcp"
	"github.com/libp2p/go-libp2p/p2p/transport/webrtc"
	"github.com/libp2p/go-libp2p/p2p/transport/websocket"
	"github.com/libp2p/go-libp2p/p2p/transport/webtransport"
)

// environmentOptions are those that the variables `security` and `swarm_key` ask for; without them, a host takes noise
// and TLS, and speaks every transport.
func environmentOptions() ([]libp2p.Option, error) {
	options := []libp2p.Option{
		libp2p.Muxer(yamux.ID, yamux.DefaultTransport),
		libp2p.Transport(tcp.NewTCPTransport),
		libp2p.Transport(websocket.New),
	}
	secure, err := security(os.Getenv("security"))
	if err != nil {
		return nil, err
	}
	options = append(options, secure...)

	if path := os.Getenv("swarm_key"); path != "" {
		file, err := os.Open(path)
		if err != nil {
			return nil, err
		}
		defer file.Close()
		key, err := pnet.DecodeV1PSK(file)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", path, err)
		}
		return append(options, libp2p.PrivateNetwork(key)), nil
	}
	// They refuse to be in a private network.
	return append(options,
		libp2p.Transport(libp2pquic.NewTransport),
		libp2p.Transport(libp2pwebtransport.New),
		libp2p.Transport(libp2pwebrtc.New),
	), nil
}

// security is the protocol of that name, or every one for "".
func security(name string) ([]libp2p.Option, error) {
	withNoise := libp2p.Security(noise.ID, noise.New)
	withTLS := libp2p.Security(libp2ptls.ID, libp2ptls.New)
	switch name {
	case "noise":
		return []libp2p.Option{withNoise}, nil
	case "tls":
		return []libp2p.Option{withTLS}, nil
	case "":
		return []libp2p.Option{withNoise, withTLS}, nil
	}
	return nil, fmt.Errorf("no security protocol %q", name)
}

// selfSigned is a certificate that nobody trusts, for secure WebSocket among those who do not look.
func selfSigned() (*tls.Config, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1),
		NotBefore:    time.Now().Add(-time.Hour),
		NotAfter:     time.Now().Add(24 * time.Hour),
	}
	certificate, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		return nil, err
	}
	return &tls.Config{Certificates: []tls.Certificate{{Certificate: [][]byte{certificate}, PrivateKey: key}}}, nil
}
