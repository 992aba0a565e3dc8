// go-libp2p as a subject of the bench, under the contract of ../workload: see its documentation. Of the commands it knows
// `connect`, `up`, `down`, `cut`, `streams` and `race`.
package main

import (
	"bufio"
	"context"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"github.com/libp2p/go-libp2p"
	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/p2p/muxer/yamux"
	"github.com/libp2p/go-libp2p/p2p/security/noise"
	libp2ptls "github.com/libp2p/go-libp2p/p2p/security/tls"
	libp2pquic "github.com/libp2p/go-libp2p/p2p/transport/quic"
	"github.com/libp2p/go-libp2p/p2p/transport/tcp"
	"github.com/libp2p/go-libp2p/p2p/transport/websocket"
)

const (
	protocol    = "/peerloom-bench/1.0.0"
	chunkLength = 64 * 1024
)

func main() {
	if err := run(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "go-libp2p:", err)
		os.Exit(1)
	}
}

func run(arguments []string) error {
	if len(arguments) != 3 {
		return fmt.Errorf("usage: PROGRAM listen TRANSPORT IP | PROGRAM dial TRANSPORT ADDRESS")
	}
	role, transport, target := arguments[0], arguments[1], arguments[2]
	options, kinds, err := transportOptions(transport)
	if err != nil {
		return err
	}
	options = append(options, libp2p.ResourceManager(&network.NullResourceManager{}))
	if role == "listen" {
		ip, port, given := strings.Cut(target, ":")
		if !given {
			port = "0"
		}
		var addresses []string
		for _, kind := range kinds {
			addresses = append(addresses, "/ip4/"+ip+"/"+strings.Replace(kind, "PORT", port, 1))
		}
		return listen(append(options, libp2p.ListenAddrStrings(addresses...)))
	}
	return dial(append(options, libp2p.NoListenAddrs), target)
}

func transportOptions(transport string) ([]libp2p.Option, []string, error) {
	options := []libp2p.Option{libp2p.Muxer(yamux.ID, yamux.DefaultTransport)}
	withNoise := libp2p.Security(noise.ID, noise.New)
	switch transport {
	case "tcp":
		return append(options, withNoise, libp2p.Transport(tcp.NewTCPTransport)), []string{"tcp/PORT"}, nil
	case "tls":
		withTLS := libp2p.Security(libp2ptls.ID, libp2ptls.New)
		return append(options, withTLS, libp2p.Transport(tcp.NewTCPTransport)), []string{"tcp/PORT"}, nil
	case "ws":
		return append(options, withNoise, libp2p.Transport(websocket.New)), []string{"tcp/PORT/ws"}, nil
	case "quic":
		return append(options, withNoise, libp2p.Transport(libp2pquic.NewTransport)), []string{"udp/PORT/quic-v1"}, nil
	case "all":
		both := append(options, withNoise, libp2p.Transport(libp2pquic.NewTransport), libp2p.Transport(tcp.NewTCPTransport))
		return both, []string{"udp/PORT/quic-v1", "tcp/PORT"}, nil
	}
	return nil, nil, fmt.Errorf("no transport %s", transport)
}

func listen(options []libp2p.Option) error {
	node, err := libp2p.New(options...)
	if err != nil {
		return err
	}
	node.SetStreamHandler(protocol, func(stream network.Stream) {
		if err := serve(stream); err != nil {
			stream.Reset()
			fmt.Fprintln(os.Stderr, "go-libp2p:", err)
		}
	})
	var accepted atomic.Int64
	node.Network().Notify(&network.NotifyBundle{ConnectedF: func(_ network.Network, connection network.Conn) {
		if connection.Stat().Direction == network.DirInbound {
			accepted.Add(1)
		}
	}})
	if err := tell(map[string]any{"address": fmt.Sprintf("%s/p2p/%s", node.Addrs()[0], node.ID())}); err != nil {
		return err
	}
	lines := bufio.NewScanner(os.Stdin)
	for lines.Scan() {
		if err := tell(map[string]any{"accepted": accepted.Load()}); err != nil {
			return err
		}
	}
	return lines.Err()
}

// serve answers one stream of the dialer's.
func serve(stream network.Stream) error {
	var header [9]byte
	if _, err := io.ReadFull(stream, header[:]); err != nil {
		return err
	}
	if _, err := stream.Write([]byte{1}); err != nil {
		return err
	}
	switch header[0] {
	case 'u':
		received, err := drain(stream)
		if err != nil {
			return err
		}
		if err := binary.Write(stream, binary.BigEndian, received); err != nil {
			return err
		}
	case 'd':
		if _, err := io.ReadFull(stream, make([]byte, 1)); err != nil {
			return err
		}
		millis := binary.BigEndian.Uint64(header[1:])
		if _, err := sendFor(stream, time.Duration(millis)*time.Millisecond); err != nil {
			return err
		}
	}
	return stream.CloseWrite()
}

func dial(options []libp2p.Option, address string) error {
	info, err := peer.AddrInfoFromString(address)
	if err != nil {
		return err
	}
	lines := bufio.NewScanner(os.Stdin)
	var node host.Host
	for lines.Scan() {
		words := strings.Fields(lines.Text())
		if words[0] == "race" {
			answer, err := race(options, strings.Split(words[1], ","))
			if err != nil {
				return fmt.Errorf("%s: %w", lines.Text(), err)
			}
			if err := tell(answer); err != nil {
				return err
			}
			continue
		}
		var numbers [2]uint64
		for index, word := range words[1:] {
			if numbers[index], err = strconv.ParseUint(word, 10, 64); err != nil {
				return err
			}
		}
		var answer map[string]any
		switch words[0] {
		case "connect":
			// A host of its own: a connection that was given up is to be none.
			if node != nil {
				node.Close()
			}
			if node, err = libp2p.New(options...); err != nil {
				return err
			}
			start := time.Now()
			err = node.Connect(context.Background(), *info)
			answer = map[string]any{"seconds": time.Since(start).Seconds()}
		case "up", "down", "cut":
			answer, err = transfer(node, info.ID, words[0], numbers[0], time.Duration(numbers[1])*time.Millisecond)
		case "streams":
			answer, err = echoes(node, info.ID, numbers[0])
		default:
			err = fmt.Errorf("no command %s", words[0])
		}
		if err != nil {
			return fmt.Errorf("%s: %w", lines.Text(), err)
		}
		if err := tell(answer); err != nil {
			return err
		}
	}
	return lines.Err()
}

// race dials a peer at all these addresses, by a host that knows nothing of earlier dials.
func race(options []libp2p.Option, addresses []string) (map[string]any, error) {
	var info peer.AddrInfo
	for _, address := range addresses {
		one, err := peer.AddrInfoFromString(address)
		if err != nil {
			return nil, err
		}
		info.ID, info.Addrs = one.ID, append(info.Addrs, one.Addrs...)
	}
	node, err := libp2p.New(options...)
	if err != nil {
		return nil, err
	}
	defer node.Close()
	start := time.Now()
	if err := node.Connect(context.Background(), info); err != nil {
		return nil, err
	}
	stream, err := open(node, info.ID, 'e', 0)
	if err != nil {
		return nil, err
	}
	answer := map[string]any{"seconds": time.Since(start).Seconds()}
	return answer, stream.Close()
}

func transfer(node host.Host, remote peer.ID, way string, count uint64, duration time.Duration) (map[string]any, error) {
	type outcome struct {
		bytes uint64
		err   error
	}
	var streams []network.Stream
	for range count {
		var stream network.Stream
		var err error
		switch way {
		case "up":
			stream, err = open(node, remote, 'u', 0)
		case "down":
			stream, err = open(node, remote, 'd', duration)
		default:
			// Longer than it will be read.
			stream, err = open(node, remote, 'd', 2*duration)
		}
		if err != nil {
			return nil, err
		}
		streams = append(streams, stream)
	}
	outcomes := make(chan outcome)
	start := time.Now()
	for _, stream := range streams {
		go func() {
			bytes, err := move(stream, way, duration)
			outcomes <- outcome{bytes, err}
		}()
	}
	var total uint64
	for range streams {
		outcome := <-outcomes
		if outcome.err != nil {
			return nil, outcome.err
		}
		total += outcome.bytes
	}
	return map[string]any{"bytes": total, "seconds": time.Since(start).Seconds()}, nil
}

func move(stream network.Stream, way string, duration time.Duration) (uint64, error) {
	defer stream.Close()
	if way == "up" {
		sent, err := sendFor(stream, duration)
		if err != nil {
			return 0, err
		}
		if err := stream.CloseWrite(); err != nil {
			return 0, err
		}
		var received uint64
		if err := binary.Read(stream, binary.BigEndian, &received); err != nil {
			return 0, err
		}
		if received != sent {
			return 0, fmt.Errorf("%d bytes were sent and %d received", sent, received)
		}
		return received, nil
	}
	if _, err := stream.Write([]byte{1}); err != nil {
		return 0, err
	}
	if way == "cut" {
		stream.SetReadDeadline(time.Now().Add(duration))
		received, _ := drain(stream)
		stream.Reset()
		return received, nil
	}
	return drain(stream)
}

func echoes(node host.Host, remote peer.ID, count uint64) (map[string]any, error) {
	each := []float64{}
	for range count {
		start := time.Now()
		stream, err := open(node, remote, 'e', 0)
		if err != nil {
			return nil, err
		}
		each = append(each, time.Since(start).Seconds())
		stream.Close()
	}
	return map[string]any{"each": each}, nil
}

// open opens a stream that the listener has answered.
func open(node host.Host, remote peer.ID, what byte, duration time.Duration) (network.Stream, error) {
	stream, err := node.NewStream(context.Background(), remote, protocol)
	if err != nil {
		return nil, err
	}
	header := binary.BigEndian.AppendUint64([]byte{what}, uint64(duration.Milliseconds()))
	if _, err := stream.Write(header); err != nil {
		return nil, err
	}
	_, err = io.ReadFull(stream, make([]byte, 1))
	return stream, err
}

func sendFor(stream network.Stream, duration time.Duration) (uint64, error) {
	chunk := make([]byte, chunkLength)
	var sent uint64
	for start := time.Now(); time.Since(start) < duration; {
		count, err := stream.Write(chunk)
		sent += uint64(count)
		if err != nil {
			return sent, err
		}
	}
	return sent, nil
}

func drain(stream network.Stream) (uint64, error) {
	buffer := make([]byte, chunkLength)
	var received uint64
	for {
		count, err := stream.Read(buffer)
		received += uint64(count)
		if err == io.EOF {
			return received, nil
		}
		if err != nil {
			return received, err
		}
	}
}

func tell(answer map[string]any) error {
	line, err := json.Marshal(answer)
	if err != nil {
		return err
	}
	_, err = fmt.Println(string(line))
	return err
}
