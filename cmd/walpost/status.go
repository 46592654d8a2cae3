package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"time"

	"github.com/rs/zerolog"

	"github.com/walpost/walpost/cdc"
	"github.com/walpost/walpost/internal/config"
	"github.com/walpost/walpost/internal/ops"
)

type statusCommand struct {
	config.Config
	JSON bool `help:"Print JSON. With and without a relay the same names mean the same."`
}

// OptionalSettings implements config.Lenient: what is not given is not asked.
func (*statusCommand) OptionalSettings() []string { return []string{"kafka-brokers", "postgres-url"} }

// UnusedSettings implements config.Sparing.
func (*statusCommand) UnusedSettings() []string {
	return []string{
		"create-topics", "delivery", "kafka-linger", "transaction-interval", "transaction-bytes",
		"max-in-flight-bytes", "drain-timeout", "log-level", "log-format",
	}
}

// relayTimeout is how long a relay may take to answer. It answers from counters, whatever its peers
// do.
const relayTimeout = 2 * time.Second

// errNotWell is what the exit code of status says; the reasons are printed.
var errNotWell = errors.New("not everything is well")

// strangerError says that another relay answers than the one that the settings are for.
type strangerError struct{ addr, what, serves, wanted string }

func (e *strangerError) Error() string {
	return fmt.Sprintf("the relay at %s serves %s %q, not %q: set WALPOST_HTTP_ADDR to the address of the right one",
		e.addr, e.what, e.serves, e.wanted)
}

// execute asks the relay, and only if none answers the servers themselves. It changes nothing
// anywhere.
func (c *statusCommand) execute(ctx context.Context, stdout, _ io.Writer) error {
	status, err := askRelay(ctx, c.HTTPAddr)
	if err == nil {
		err = c.recognise(ctx, status)
	}
	if err == nil {
		// Before its first session a relay does not know its source, and is not ready.
		well := status.Ready && status.Source != ""
		return c.print(stdout, status, well, func(w io.Writer) error { return printRelay(w, c.HTTPAddr, status) })
	}
	found := c.inspect(ctx, err)
	err = c.print(stdout, found, found.well(), func(w io.Writer) error { return printServers(w, found) })
	if found.unusable && errors.Is(err, errNotWell) {
		return &toldError{exitUsage, errNotWell}
	}
	return err
}

func (c *statusCommand) print(w io.Writer, status any, well bool, text func(io.Writer) error) error {
	var err error
	if c.JSON {
		encoder := json.NewEncoder(w)
		encoder.SetIndent("", "  ")
		err = encoder.Encode(status)
	} else {
		err = text(w)
	}
	if err != nil {
		return fmt.Errorf("print status: %w", err)
	}
	if !well {
		return &toldError{exitFailed, errNotWell}
	}
	return nil
}

// recognise makes sure that the relay which answers is ours: on one host there may be one for each
// database, and all of them have the same default address. Where Postgres does not answer, the name
// of the slot has to do.
func (c *statusCommand) recognise(ctx context.Context, status ops.Status) error {
	system, slot, known := strings.Cut(status.Source, "/")
	if known && slot != c.Slot {
		return &strangerError{c.HTTPAddr, "slot", slot, c.Slot}
	}
	if !known || c.PostgresURL == "" {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, serverTimeout)
	defer cancel()
	stream, err := newStreamConfig(c.Config, zerolog.Nop())
	if err != nil {
		return err
	}
	if view, err := cdc.Inspect(ctx, stream); err == nil && view.System != system {
		return &strangerError{c.HTTPAddr, "cluster", system, view.System}
	}
	return nil
}

// askRelay returns the status of the relay that answers at an address.
func askRelay(ctx context.Context, addr string) (ops.Status, error) {
	if addr == "" {
		return ops.Status{}, errors.New("the settings turn the relay's HTTP server off")
	}
	ctx, cancel := context.WithTimeout(ctx, relayTimeout)
	defer cancel()
	response, err := get(ctx, addr, "/status")
	if err != nil {
		return ops.Status{}, err
	}
	defer func() { _ = response.Body.Close() }()
	var status ops.Status
	err = json.NewDecoder(io.LimitReader(response.Body, 4<<20)).Decode(&status)
	if response.StatusCode != http.StatusOK || err != nil || status.State == "" {
		return ops.Status{}, fmt.Errorf("what answers at %s is not a relay (%s)", addr, response.Status)
	}
	return status, nil
}

// get asks the HTTP server of a relay. A relay that listens on all addresses is asked on the
// loopback one. The caller closes the body.
func get(ctx context.Context, addr, path string) (*http.Response, error) {
	host, port, err := net.SplitHostPort(addr)
	if err != nil {
		return nil, fmt.Errorf("read address of the relay: %w", err)
	}
	if ip := net.ParseIP(host); host == "" || ip != nil && ip.IsUnspecified() {
		host = "127.0.0.1"
		if ip != nil && ip.To4() == nil {
			host = "::1"
		}
	}
	url := "http://" + net.JoinHostPort(host, port) + path
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, url, http.NoBody)
	if err != nil {
		return nil, fmt.Errorf("ask relay at %s: %w", addr, err)
	}
	// No proxy and no idle connection: the relay is near, and asked once.
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	response, err := client.Do(request)
	if err != nil {
		return nil, fmt.Errorf("ask relay at %s: %w", addr, errors.Unwrap(err))
	}
	return response, nil
}
