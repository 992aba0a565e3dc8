package main

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/libp2p/go-libp2p"
	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/p2p/protocol/autonatv2"
	ma "github.com/multiformats/go-multiaddr"
)

// What everybody who plays AutoNAT asks about, as ../js/autonat.mjs has it.
var autonatQuestions = []string{
	"/ip4/127.0.0.1/tcp/{tcp}",
	"/ip4/127.0.0.2/tcp/{tcp}",
	"/ip4/127.0.0.1/udp/{udp}/quic-v1",
	"/ip4/127.0.0.2/udp/{udp}/quic-v1",
	"/ip4/127.0.0.1/tcp/1",
}

type autonatAnswers struct {
	Event   string            `json:"event"`
	Answers map[string]string `json:"answers"`
}

// serveAutonat listens at that address and dials back who asks for it.
func serveAutonat(address string) error {
	node, err := newHost(libp2p.ListenAddrStrings(address))
	if err != nil {
		return err
	}
	defer node.Close()
	service, err := startAutonat(node)
	if err != nil {
		return err
	}
	defer service.Close()
	reportListening(node)
	untilStdinEnds()
	return nil
}

// askAutonat asks the server at that address, each question as another host: go-libp2p asks a server once in two minutes.
func askAutonat(server string) error {
	answers := map[string]string{}
	for _, question := range autonatQuestions {
		answer, err := askOne(server, question)
		if err != nil {
			answer = err.Error()
		}
		answers[question] = answer
	}
	report(autonatAnswers{"autonat", answers})
	untilStdinEnds()
	return nil
}

func askOne(server, question string) (string, error) {
	ctx, cancel := context.WithTimeout(context.Background(), checkTimeout)
	defer cancel()
	node, err := newHost(libp2p.ListenAddrStrings("/ip4/0.0.0.0/tcp/0", "/ip4/0.0.0.0/udp/0/quic-v1"))
	if err != nil {
		return "", err
	}
	defer node.Close()
	service, err := startAutonat(node)
	if err != nil {
		return "", err
	}
	defer service.Close()
	remote, err := peer.AddrInfoFromString(server)
	if err != nil {
		return "", err
	}
	if err := node.Connect(ctx, *remote); err != nil {
		return "", err
	}
	asked, err := ma.NewMultiaddr(withPorts(node, question))
	if err != nil {
		return "", err
	}
	request := []autonatv2.Request{{Addr: asked, SendDialData: true}}
	for {
		result, err := service.GetReachability(ctx, request)
		// Until identify has told that the server is one.
		if errors.Is(err, autonatv2.ErrNoPeers) && ctx.Err() == nil {
			time.Sleep(20 * time.Millisecond)
			continue
		}
		if err != nil {
			return "", err
		}
		switch {
		case result.AllAddrsRefused:
			return "refused", nil
		case result.Reachability == network.ReachabilityPublic:
			return "reached", nil
		case result.Reachability == network.ReachabilityPrivate:
			return "not reached", nil
		}
		return "", fmt.Errorf("unknown: %v", result)
	}
}

func startAutonat(node host.Host) (*autonatv2.AutoNAT, error) {
	dialer, err := newHost(libp2p.NoListenAddrs)
	if err != nil {
		return nil, err
	}
	service, err := autonatv2.New(dialer, autonatv2.AllowPrivateAddrs)
	if err != nil {
		return nil, err
	}
	return service, service.Start(node)
}

// withPorts puts the ports on which the node listens in place of their names.
func withPorts(node host.Host, question string) string {
	for _, address := range node.Network().ListenAddresses() {
		if port, err := address.ValueForProtocol(ma.P_TCP); err == nil {
			question = strings.ReplaceAll(question, "{tcp}", port)
		}
		if port, err := address.ValueForProtocol(ma.P_UDP); err == nil {
			question = strings.ReplaceAll(question, "{udp}", port)
		}
	}
	return question
}
