package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/alecthomas/kong"

	"github.com/walpost/walpost/internal/config"
	"github.com/walpost/walpost/internal/demo"
	"github.com/walpost/walpost/internal/pgserver"
)

// demoCommand does not embed config.Config: the names are the demo's own, and the servers of the
// settings are most likely those of production, where nobody wants a demo by accident. So its
// servers have variables of their own.
type demoCommand struct {
	PostgresURL   string        `name:"postgres-url" env:"WALPOST_DEMO_POSTGRES_URL" placeholder:"URL" help:"Use this database instead of an embedded one. The demo creates schema, slot and publication walpost_demo in it and removes them at the end."`
	KafkaBrokers  []string      `env:"WALPOST_DEMO_KAFKA_BROKERS" sep:"," placeholder:"HOST:PORT" help:"Use these brokers instead of an embedded one, without TLS and login. The demo creates the topics demo.* that are missing and removes those at the end."`
	PostgresMajor int           `placeholder:"14..18" help:"Major version of the embedded Postgres; otherwise one that is here, or the newest."`
	Partitions    int           `default:"3" help:"Partitions of the topics that the demo creates."`
	Rate          float64       `default:"5" help:"Events per second."`
	Duration      time.Duration `default:"0s" help:"How long to write events; 0 = until Ctrl-C."`
	HTTPAddr      string        `name:"http-addr" env:"WALPOST_DEMO_HTTP_ADDR" default:"127.0.0.1:0" help:"Address of the relay's metrics, health and status; port 0 takes a free one, empty turns them off."`
	LogLevel      string        `default:"warn" help:"trace, debug, info, warn or error."`
	LogFormat     string        `default:"auto" help:"json, console, or auto: console on a terminal."`
}

// AfterApply implements a hook of kong. It ignores the servers in the file, which are the relay's.
func (c *demoCommand) AfterApply(parsed *kong.Context) error {
	for _, step := range parsed.Path {
		if step.Flag == nil || !step.Resolved {
			continue
		}
		switch step.Flag.Name {
		case "postgres-url":
			c.PostgresURL = ""
		case "kafka-brokers":
			c.KafkaBrokers = nil
		case "http-addr":
			c.HTTPAddr = "127.0.0.1:0"
		}
	}
	return nil
}

func (c *demoCommand) execute(ctx context.Context, stdout, stderr io.Writer) error {
	cfg := c.config()
	if faults := c.faults(cfg); len(faults) > 0 {
		for _, fault := range faults {
			fmt.Fprintln(stderr, "walpost:", fault)
		}
		return &toldError{exitUsage, errors.New("settings are wrong")}
	}
	// A terminal that closes and a reader that leaves must not end the process before it has
	// cleaned up: with a channel for SIGPIPE, the write fails instead.
	ctx, stop := signal.NotifyContext(ctx, syscall.SIGHUP)
	defer stop()
	pipe := make(chan os.Signal, 1)
	signal.Notify(pipe, syscall.SIGPIPE)
	defer signal.Stop(pipe)

	err := demo.Run(ctx, demo.Options{
		Config: cfg, PostgresMajor: c.PostgresMajor, Partitions: c.Partitions, Rate: c.Rate, Duration: c.Duration,
		Colors: isTerminal(stdout) && os.Getenv("NO_COLOR") == "" && os.Getenv("TERM") != "dumb", Out: stdout,
	}, demo.Tools{
		SetUp: func(ctx context.Context, cfg config.Config, out io.Writer) error {
			options, err := newMigrationOptions(cfg, false)
			if err != nil {
				return err
			}
			return setUp(ctx, cfg, options, false, out)
		},
		Relay: func(ctx context.Context, cfg config.Config) error { return runRelay(ctx, cfg, newLogger(cfg, stderr)) },
		Ready: ready,
	})
	if errors.Is(err, syscall.EPIPE) {
		return &toldError{exitFailed, err} // nobody reads the output any more
	}
	return err
}

// config has the relay's defaults with the demo's names.
func (c *demoCommand) config() config.Config {
	return config.Config{
		PostgresURL: c.PostgresURL, Table: []string{demo.Table}, Slot: demo.Name, Publication: demo.Name, Origin: "any",
		KafkaBrokers: c.KafkaBrokers, Topic: demo.Topic, StateTopic: demo.StateTopic, Delivery: "at-least-once",
		KafkaMaxRequestBytes: 100 << 20, KafkaLinger: 2 * time.Millisecond,
		TransactionInterval: 100 * time.Millisecond, TransactionBytes: 16 << 20,
		MaxInFlightBytes: 64 << 20, DrainTimeout: 10 * time.Second,
		HTTPAddr: c.HTTPAddr, LogLevel: c.LogLevel, LogFormat: c.LogFormat,
	}
}

// maxRate is what one connection can commit, one transaction after the other.
const maxRate = 2000

func (c *demoCommand) faults(cfg config.Config) []string {
	faults := cfg.Validate("postgres-url", "kafka-brokers")
	if !(c.Rate > 0 && c.Rate <= maxRate) {
		faults = append(faults, fmt.Sprintf("--rate: %g must be more than 0, and at most %d events "+
			"per second", c.Rate, maxRate))
	}
	if c.Duration < 0 {
		faults = append(faults, fmt.Sprintf("--duration: %s is negative", c.Duration))
	}
	if c.Partitions < 1 || c.Partitions > 1000 {
		faults = append(faults, fmt.Sprintf("--partitions: %d is not between 1 and 1000", c.Partitions))
	}
	if c.PostgresMajor != 0 && (c.PostgresMajor < pgserver.OldestMajor || c.PostgresMajor > pgserver.NewestMajor) {
		faults = append(faults, fmt.Sprintf("--postgres-major: %d is not between %d and %d",
			c.PostgresMajor, pgserver.OldestMajor, pgserver.NewestMajor))
	}
	if c.PostgresMajor != 0 && c.PostgresURL != "" {
		faults = append(faults, "--postgres-major: has no effect with --postgres-url "+
			"(WALPOST_DEMO_POSTGRES_URL): leave one out")
	}
	return faults
}

// ready asks a relay whether it streams and produces.
func ready(ctx context.Context, addr string) bool {
	response, err := get(ctx, addr, "/readyz")
	if err != nil {
		return false
	}
	_ = response.Body.Close() // only the code counts
	return response.StatusCode == http.StatusOK
}
