package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"time"

	"github.com/libp2p/go-libp2p"
	"github.com/libp2p/go-libp2p/core/event"
	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/protocol"
	"github.com/libp2p/go-libp2p/p2p/protocol/circuitv2/client"
	"github.com/libp2p/go-libp2p/p2p/protocol/ping"
	"github.com/multiformats/go-multistream"
)

const (
	checkTimeout   = 20 * time.Second
	limitedTimeout = 2 * time.Second
	// More than any relay counts as within its limit.
	overLimitBytes = 4 * 1024 * 1024
)

type found map[string]any

type check func(context.Context) (any, error)

// dialer makes the checks on one connection.
type dialer struct {
	node       host.Host
	identities event.Subscription
	connection network.Conn
}

// dial makes the checks, but those named, and prints what they found.
func dial(address string, without []string) error {
	node, err := newHost(libp2p.NoListenAddrs, libp2p.EnableRelay())
	if err != nil {
		return err
	}
	defer node.Close()
	identities, err := node.EventBus().Subscribe(new(event.EvtPeerIdentificationCompleted))
	if err != nil {
		return err
	}
	d := &dialer{node: node, identities: identities}
	results := found{"connect": within(func(ctx context.Context) (any, error) { return d.connect(ctx, address) })}
	if d.connection != nil {
		for _, named := range d.checks() {
			if !slices.Contains(without, named.name) {
				results[named.name] = within(named.check)
			}
		}
	}
	report(found{"peer": node.ID().String(), "checks": results})
	// The listener may not have asked yet who dials it; whoever started us says when all is done.
	untilStdinEnds()
	return nil
}

type namedCheck struct {
	name  string
	check check
}

// checks are in the order in which they are made.
func (d *dialer) checks() []namedCheck {
	checks := []namedCheck{
		{"identify", d.identify},
		{"ping", d.ping},
		{"echo", d.echo},
		{"half-close", d.halfClose},
		{"reset", d.reset},
		{"remote reset", d.remoteReset},
		{"still alive", d.ping},
	}
	if d.limited() {
		// It ends the connection.
		checks = append(checks, namedCheck{"over limit", d.overLimit})
	}
	return checks
}

// within is what a check found in its time, or its error.
func within(check check) any {
	ctx, cancel := context.WithTimeout(context.Background(), checkTimeout)
	defer cancel()
	result, err := check(ctx)
	if err != nil {
		if ctx.Err() != nil {
			err = fmt.Errorf("no result after %s: %w", checkTimeout, err)
		}
		return found{"error": err.Error()}
	}
	return result
}

func (d *dialer) connect(ctx context.Context, address string) (any, error) {
	remote, err := peer.AddrInfoFromString(address)
	if err != nil {
		return nil, err
	}
	if err := d.node.Connect(network.WithAllowLimitedConn(ctx, "interop"), *remote); err != nil {
		return nil, err
	}
	connections := d.node.Network().ConnsToPeer(remote.ID)
	if len(connections) == 0 {
		return nil, errors.New("the connection is gone")
	}
	d.connection = connections[0]
	result := found{"remote": remote.ID.String(), "direct": !d.limited()}
	if d.limited() {
		extra := d.connection.Stat().Extra
		limits := found{"bytes": extra[client.StatLimitData]}
		if duration, ok := extra[client.StatLimitDuration].(time.Duration); ok {
			limits["seconds"] = duration.Seconds()
		}
		result["limits"] = limits
	}
	return result, nil
}

func (d *dialer) identify(ctx context.Context) (any, error) {
	for {
		select {
		case next := <-d.identities.Out():
			told := next.(event.EvtPeerIdentificationCompleted)
			if told.Conn.ID() != d.connection.ID() {
				continue
			}
			var addresses []string
			for _, address := range told.ListenAddrs {
				addresses = append(addresses, address.String())
			}
			result := found{"protocols": told.Protocols, "addresses": addresses}
			if told.ObservedAddr != nil {
				result["observed"] = told.ObservedAddr.String()
			}
			return result, nil
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}

func (d *dialer) ping(ctx context.Context) (any, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	pong := <-ping.Ping(ctx, d.node, d.connection.RemotePeer())
	return found{"ms": milliseconds(pong.RTT)}, pong.Error
}

func (d *dialer) echo(ctx context.Context) (any, error) {
	stream, err := d.open(ctx, echoProtocol)
	if err != nil {
		return nil, err
	}
	length := 1024 * 1024
	if d.limited() {
		// With the handshakes and what comes back, within the limit of relays that count both directions together.
		length = 128 * 1024
	}
	sent := pattern(length)
	written := make(chan error, 1)
	go func() {
		_, err := stream.Write(sent)
		written <- err
	}()
	received := make([]byte, length)
	if _, err := io.ReadFull(stream, received); err != nil {
		return nil, err
	}
	if err := <-written; err != nil {
		return nil, err
	}
	if err := stream.CloseWrite(); err != nil {
		return nil, err
	}
	return found{"equal": bytes.Equal(sent, received), "end": ending(stream)}, nil
}

func (d *dialer) halfClose(ctx context.Context) (any, error) {
	stream, err := d.open(ctx, echoProtocol)
	if err != nil {
		return nil, err
	}
	length := 64 * 1024
	if d.limited() {
		length = 32 * 1024
	}
	sent := pattern(length)
	if _, err := stream.Write(sent); err != nil {
		return nil, err
	}
	if err := stream.CloseWrite(); err != nil {
		return nil, err
	}
	received := make([]byte, length)
	if _, err := io.ReadFull(stream, received); err != nil {
		return nil, err
	}
	return found{"equal": bytes.Equal(sent, received), "end": ending(stream)}, nil
}

func (d *dialer) reset(ctx context.Context) (any, error) {
	stream, err := d.open(ctx, echoProtocol)
	if err != nil {
		return nil, err
	}
	if _, err := stream.Write(pattern(1)); err != nil {
		return nil, err
	}
	if _, err := io.ReadFull(stream, make([]byte, 1)); err != nil {
		return nil, err
	}
	return found{}, stream.Reset()
}

func (d *dialer) remoteReset(ctx context.Context) (any, error) {
	if d.limited() {
		// Where that is not allowed, it waits for a better connection.
		short, cancel := context.WithTimeout(ctx, limitedTimeout)
		defer cancel()
		ctx = short
	}
	// Not allowed on limited connections, unlike the echo.
	stream, err := d.node.NewStream(ctx, d.connection.RemotePeer(), resetProtocol)
	if d.limited() && (errors.Is(err, network.ErrLimitedConn) || errors.Is(err, context.DeadlineExceeded)) {
		return found{"end": "limited"}, nil
	}
	if errors.As(err, new(multistream.ErrNotSupported[protocol.ID])) {
		return found{"end": "unsupported"}, nil
	}
	if err != nil {
		return nil, err
	}
	setDeadline(ctx, stream)
	// The reset may come as early as here.
	if _, err := stream.Write(pattern(1)); errors.Is(err, network.ErrReset) {
		return found{"end": "reset"}, nil
	} else if err != nil {
		return nil, err
	}
	return found{"end": ending(stream)}, nil
}

// overLimit sends until the relay has had enough, and tells how that shows.
func (d *dialer) overLimit(ctx context.Context) (any, error) {
	stream, err := d.open(ctx, echoProtocol)
	if err != nil {
		return nil, err
	}
	go func() { _, _ = stream.Write(pattern(overLimitBytes)) }()
	if _, err := io.ReadFull(stream, make([]byte, overLimitBytes)); err != nil {
		return found{"ended": err.Error()}, nil
	}
	return found{"ended": nil}, nil
}

func (d *dialer) open(ctx context.Context, name protocol.ID) (network.Stream, error) {
	stream, err := d.node.NewStream(network.WithAllowLimitedConn(ctx, "interop"), d.connection.RemotePeer(), name)
	if err == nil {
		setDeadline(ctx, stream)
	}
	return stream, err
}

func setDeadline(ctx context.Context, stream network.Stream) {
	if deadline, ok := ctx.Deadline(); ok {
		_ = stream.SetDeadline(deadline)
	}
}

func (d *dialer) limited() bool {
	return d.connection.Stat().Limited
}

// ending is "closed", "reset", or how many bytes came instead.
func ending(stream network.Stream) string {
	received, err := stream.Read(make([]byte, 1))
	switch {
	case received > 0:
		return fmt.Sprintf("%d more bytes", received)
	case errors.Is(err, io.EOF):
		return "closed"
	case errors.Is(err, network.ErrReset):
		return "reset"
	}
	return err.Error()
}

// pattern is bytes of which no two stretches are alike, so that a lost, doubled or swapped chunk shows.
func pattern(length int) []byte {
	result := make([]byte, length)
	state := uint32(0x2545f491)
	for at := range result {
		state = state*1664525 + 1013904223
		result[at] = byte(state >> 24)
	}
	return result
}
