package main

import (
	"context"
	"crypto/tls"
	"fmt"
	"log"
	"os"
	"strconv"
	"time"

	"github.com/libp2p/go-libp2p"
	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/p2p/muxer/yamux"
	"github.com/libp2p/go-libp2p/p2p/protocol/ping"
	"github.com/libp2p/go-libp2p/p2p/transport/quic"
	"github.com/libp2p/go-libp2p/p2p/transport/tcp"
	"github.com/libp2p/go-libp2p/p2p/transport/webrtc"
	"github.com/libp2p/go-libp2p/p2p/transport/websocket"
	"github.com/libp2p/go-libp2p/p2p/transport/webtransport"
	manet "github.com/multiformats/go-multiaddr/net"
)

// testPlans is what libp2p/test-plans, transport-interop, asks of a program, by environment variables and through Redis.
func testPlans() error {
	timeout := 180 * time.Second
	if seconds, err := strconv.Atoi(os.Getenv("test_timeout_seconds")); err == nil {
		timeout = time.Duration(seconds) * time.Second
	}
	ctx, cancel := context.WithTimeout(context.Background(), timeout)
	defer cancel()
	redis, err := connectRedis(ctx, variable("redis_addr", "redis:6379"))
	if err != nil {
		return err
	}
	defer redis.close()

	isDialer := os.Getenv("is_dialer") == "true"
	options, address, err := testPlansTransport(os.Getenv("transport"), variable("ip", "0.0.0.0"))
	if err != nil {
		return err
	}
	if isDialer {
		options = append(options, libp2p.NoListenAddrs)
	} else {
		options = append(options, libp2p.ListenAddrStrings(address))
	}
	node, err := libp2p.New(options...)
	if err != nil {
		return err
	}
	defer node.Close()

	if isDialer {
		listener, err := redis.waitForAddress()
		if err != nil {
			return fmt.Errorf("no address of a listener: %w", err)
		}
		return dialAndPing(ctx, node, listener)
	}
	if err := redis.publishAddress(publishedAddress(node)); err != nil {
		return err
	}
	<-ctx.Done()
	return fmt.Errorf("not stopped within %s", timeout)
}

func dialAndPing(ctx context.Context, node host.Host, address string) error {
	remote, err := peer.AddrInfoFromString(address)
	if err != nil {
		return err
	}
	log.Printf("dialing %s", address)
	start := time.Now()
	if err := node.Connect(ctx, *remote); err != nil {
		return err
	}
	pong := <-ping.Ping(ctx, node, remote.ID)
	if pong.Error != nil {
		return pong.Error
	}
	// The second is spelled as the contract spells it.
	report(map[string]float64{
		"handshakePlusOneRTTMillis": milliseconds(time.Since(start)),
		"pingRTTMilllis":            milliseconds(pong.RTT),
	})
	return nil
}

// testPlansTransport is a transport with what secures it, and where to listen with it.
func testPlansTransport(name, ip string) ([]libp2p.Option, string, error) {
	if muxer := os.Getenv("muxer"); muxer != "" && muxer != "yamux" {
		return nil, "", fmt.Errorf("no muxer %q", muxer)
	}
	switch name {
	case "quic-v1":
		return []libp2p.Option{libp2p.Transport(libp2pquic.NewTransport)}, fmt.Sprintf("/ip4/%s/udp/0/quic-v1", ip), nil
	case "webtransport":
		return []libp2p.Option{libp2p.Transport(libp2pwebtransport.New)},
			fmt.Sprintf("/ip4/%s/udp/0/quic-v1/webtransport", ip), nil
	case "webrtc-direct":
		return []libp2p.Option{libp2p.Transport(libp2pwebrtc.New)}, fmt.Sprintf("/ip4/%s/udp/0/webrtc-direct", ip), nil
	}
	options, err := security(variable("security", "none"))
	if err != nil {
		return nil, "", err
	}
	options = append(options, libp2p.Muxer(yamux.ID, yamux.DefaultTransport))
	switch name {
	case "tcp":
		return append(options, libp2p.Transport(tcp.NewTCPTransport)), fmt.Sprintf("/ip4/%s/tcp/0", ip), nil
	case "ws":
		return append(options, libp2p.Transport(websocket.New)), fmt.Sprintf("/ip4/%s/tcp/0/ws", ip), nil
	case "wss":
		server, err := selfSigned()
		if err != nil {
			return nil, "", err
		}
		secure := libp2p.Transport(websocket.New, websocket.WithTLSConfig(server),
			websocket.WithTLSClientConfig(&tls.Config{InsecureSkipVerify: true}))
		return append(options, secure), fmt.Sprintf("/ip4/%s/tcp/0/tls/ws", ip), nil
	}
	return nil, "", fmt.Errorf("no transport %q", name)
}

// publishedAddress is one that others can dial: where there is another, not that of the loopback interface.
func publishedAddress(node host.Host) string {
	addresses := node.Addrs()
	chosen := addresses[0]
	for _, address := range addresses {
		if !manet.IsIPLoopback(address) {
			chosen = address
			break
		}
	}
	return fmt.Sprintf("%s/p2p/%s", chosen, node.ID())
}

func variable(name, otherwise string) string {
	if value := os.Getenv(name); value != "" {
		return value
	}
	return otherwise
}

func milliseconds(duration time.Duration) float64 {
	return float64(duration.Microseconds()) / 1000
}
