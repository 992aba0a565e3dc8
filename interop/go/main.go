// go-libp2p as a peer program of the matrix; ../README.md has its contracts.
//
// usage: peer listen ADDR | relay ADDR | reserve ADDR relayed | serve-autonat ADDR | ask-autonat ADDR |
//
//	dial ADDR [CHECK…] | test-plans
package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log"
	"os"
)

const (
	echoProtocol = "/echo/1.0.0"
	// Reads something, then resets the stream.
	resetProtocol = "/peerloom-interop/reset/1.0.0"
)

func main() {
	log.SetOutput(os.Stderr)
	if err := run(os.Args[1:]); err != nil {
		log.Fatal(err)
	}
}

func run(arguments []string) error {
	switch {
	case len(arguments) == 1 && arguments[0] == "test-plans":
		return testPlans()
	case len(arguments) >= 2 && arguments[0] == "dial":
		return dial(arguments[1], arguments[2:])
	case len(arguments) >= 2 && arguments[0] == "listen":
		return listen(arguments[1])
	case len(arguments) >= 2 && arguments[0] == "relay":
		return relay(arguments[1])
	case len(arguments) == 2 && arguments[0] == "serve-autonat":
		return serveAutonat(arguments[1])
	case len(arguments) == 2 && arguments[0] == "ask-autonat":
		return askAutonat(arguments[1])
	case len(arguments) == 3 && arguments[0] == "reserve" && arguments[2] == "relayed":
		return reserve(arguments[1])
	}
	return errors.New("usage: peer listen ADDR | relay ADDR | reserve ADDR relayed | serve-autonat ADDR | ask-autonat ADDR | " +
		"dial ADDR [CHECK…] | test-plans")
}

// report prints one line of JSON.
func report(line any) {
	encoded, err := json.Marshal(line)
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(string(encoded))
}

// untilStdinEnds returns when whoever started us is through with us, or gone.
func untilStdinEnds() {
	_, _ = io.Copy(io.Discard, os.Stdin)
}
