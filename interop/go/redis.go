package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"strconv"
	"strings"
	"time"
)

// The list of Redis through which a listener tells its address.
const addressKey = "listenerAddr"

// Between attempts to reach a server that may not have started yet.
const redisRetry = 100 * time.Millisecond

// redis speaks as much of that protocol (RESP2) as one list needs.
type redis struct {
	connection net.Conn
	reader     *bufio.Reader
}

// connectRedis tries until there is a server, or ctx is over, which also ends whatever is waited for later.
func connectRedis(ctx context.Context, address string) (*redis, error) {
	var dialer net.Dialer
	for {
		connection, err := dialer.DialContext(ctx, "tcp", address)
		if err == nil {
			if deadline, ok := ctx.Deadline(); ok {
				_ = connection.SetDeadline(deadline)
			}
			return &redis{connection, bufio.NewReader(connection)}, nil
		}
		select {
		case <-ctx.Done():
			return nil, fmt.Errorf("no Redis at %s: %w", address, err)
		case <-time.After(redisRetry):
		}
	}
}

func (r *redis) publishAddress(address string) error {
	_, err := r.call("RPUSH", addressKey, address)
	return err
}

func (r *redis) waitForAddress() (string, error) {
	// The key, and what was in the list.
	reply, err := r.call("BLPOP", addressKey, "0")
	if err != nil {
		return "", err
	}
	return reply[len(reply)-1], nil
}

func (r *redis) close() {
	_ = r.connection.Close()
}

func (r *redis) call(words ...string) ([]string, error) {
	request := fmt.Sprintf("*%d\r\n", len(words))
	for _, word := range words {
		request += fmt.Sprintf("$%d\r\n%s\r\n", len(word), word)
	}
	if _, err := io.WriteString(r.connection, request); err != nil {
		return nil, err
	}
	return r.reply()
}

// reply is the strings and numbers of a reply, however they are nested; there is at least one.
func (r *redis) reply() ([]string, error) {
	line, err := r.reader.ReadString('\n')
	if err != nil {
		return nil, err
	}
	line = strings.TrimSuffix(line, "\r\n")
	if line == "" {
		return nil, errors.New("empty reply from Redis")
	}
	rest := line[1:]
	switch line[0] {
	case '+', ':':
		return []string{rest}, nil
	case '$':
		length, err := strconv.Atoi(rest)
		if err != nil || length < 0 {
			return nil, fmt.Errorf("no string in the reply of Redis: %q", line)
		}
		text := make([]byte, length+2)
		if _, err := io.ReadFull(r.reader, text); err != nil {
			return nil, err
		}
		return []string{string(text[:length])}, nil
	case '*':
		count, err := strconv.Atoi(rest)
		if err != nil || count < 1 {
			return nil, fmt.Errorf("no elements in the reply of Redis: %q", line)
		}
		var elements []string
		for range count {
			element, err := r.reply()
			if err != nil {
				return nil, err
			}
			elements = append(elements, element...)
		}
		return elements, nil
	}
	return nil, fmt.Errorf("Redis: %s", line)
}
