package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/libp2p/go-libp2p"
	"github.com/libp2p/go-libp2p/core/event"
	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/p2p/protocol/circuitv2/client"
	circuit "github.com/libp2p/go-libp2p/p2p/protocol/circuitv2/relay"
	ma "github.com/multiformats/go-multiaddr"
)

// What a circuit may carry and how long it may last, as ../js/contract.mjs has it.
const (
	circuitBytes    = 1024 * 1024
	circuitDuration = 120 * time.Second
)

type listening struct {
	Event     string   `json:"event"`
	Peer      string   `json:"peer"`
	Addresses []string `json:"addresses"`
}

type identified struct {
	Event     string   `json:"event"`
	Peer      string   `json:"peer"`
	Protocols []string `json:"protocols"`
}

type echoed struct {
	Event string `json:"event"`
	Peer  string `json:"peer"`
	Bytes int    `json:"bytes"`
	End   string `json:"end"`
}

func listen(address string) error {
	node, err := newHost(libp2p.ListenAddrStrings(address))
	if err != nil {
		return err
	}
	defer node.Close()
	if err := serve(node); err != nil {
		return err
	}
	reportListening(node)
	untilStdinEnds()
	return nil
}

func relay(address string) error {
	node, err := newHost(libp2p.ListenAddrStrings(address))
	if err != nil {
		return err
	}
	defer node.Close()
	service, err := circuit.New(node,
		circuit.WithLimit(&circuit.RelayLimit{Duration: circuitDuration, Data: circuitBytes}),
		// By default it names only those that the whole internet can reach.
		circuit.WithReservationAddressFilter(func(ma.Multiaddr) bool { return true }),
	)
	if err != nil {
		return err
	}
	defer service.Close()
	reportListening(node)
	untilStdinEnds()
	return nil
}

// reserve listens through the relay at that address.
func reserve(address string) error {
	relay, err := peer.AddrInfoFromString(address)
	if err != nil {
		return err
	}
	through, err := ma.NewMultiaddr(address + "/p2p-circuit")
	if err != nil {
		return err
	}
	tellCircuit := func([]ma.Multiaddr) []ma.Multiaddr { return []ma.Multiaddr{through} }
	node, err := newHost(libp2p.NoListenAddrs, libp2p.EnableRelay(), libp2p.AddrsFactory(tellCircuit))
	if err != nil {
		return err
	}
	defer node.Close()
	if err := serve(node); err != nil {
		return err
	}
	if err := node.Connect(context.Background(), *relay); err != nil {
		return err
	}
	if _, err := client.Reserve(context.Background(), node, *relay); err != nil {
		return err
	}
	reportListening(node)
	untilStdinEnds()
	return nil
}

func newHost(options ...libp2p.Option) (host.Host, error) {
	environment, err := environmentOptions()
	if err != nil {
		return nil, err
	}
	return libp2p.New(append(environment, options...)...)
}

func reportListening(node host.Host) {
	var addresses []string
	for _, address := range node.Addrs() {
		addresses = append(addresses, fmt.Sprintf("%s/p2p/%s", address, node.ID()))
	}
	report(listening{"listening", node.ID().String(), addresses})
}

// serve answers /echo and the protocol that resets, and reports what it sees.
func serve(node host.Host) error {
	events, err := node.EventBus().Subscribe(new(event.EvtPeerIdentificationCompleted))
	if err != nil {
		return err
	}
	go func() {
		for next := range events.Out() {
			told := next.(event.EvtPeerIdentificationCompleted)
			var protocols []string
			for _, protocol := range told.Protocols {
				protocols = append(protocols, string(protocol))
			}
			report(identified{"identified", told.Peer.String(), protocols})
		}
	}()
	node.SetStreamHandler(echoProtocol, func(stream network.Stream) {
		bytes, err := echo(stream)
		end := "closed"
		if err != nil {
			end = "reset"
		}
		report(echoed{"echo", stream.Conn().RemotePeer().String(), bytes, end})
	})
	node.SetStreamHandler(resetProtocol, func(stream network.Stream) {
		_, _ = stream.Read(make([]byte, 1))
		_ = stream.Reset()
	})
	return nil
}

// echo sends back what comes in, until it ends, and counts it.
func echo(stream network.Stream) (int, error) {
	bytes := 0
	buffer := make([]byte, 16*1024)
	for {
		received, err := stream.Read(buffer)
		bytes += received
		if _, err := stream.Write(buffer[:received]); err != nil {
			_ = stream.Reset()
			return bytes, err
		}
		if errors.Is(err, io.EOF) {
			return bytes, stream.Close()
		}
		if err != nil {
			_ = stream.Reset()
			return bytes, err
		}
	}
}
