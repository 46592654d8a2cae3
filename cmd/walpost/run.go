package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"runtime"
	"strconv"
	"syscall"
	"time"

	"github.com/rs/zerolog"

	"github.com/walpost/walpost/cdc"
	"github.com/walpost/walpost/internal/config"
	"github.com/walpost/walpost/internal/ops"
	"github.com/walpost/walpost/internal/relay"
	"github.com/walpost/walpost/sink"
)

type runCommand struct{ config.Config }

func (c *runCommand) execute(ctx context.Context, _, stderr io.Writer) error {
	useOneProcessor()
	log := newLogger(c.Config, stderr)
	warnOfUnknown(log, os.Environ())
	err := runRelay(ctx, c.Config, log)
	var halt *relay.Halt
	var settings *cdc.SettingsError
	switch {
	case err == nil:
		return nil
	case errors.As(err, &settings):
		log.Error().Err(err).Str("what_to_do", settings.Hint).
			Msg("stopped: these settings cannot be used; nothing is lost")
		return &toldError{exitUsage, err}
	case errors.Is(err, relay.ErrDrain):
		log.Error().Err(err).Msg("stopped, not everything in flight was confirmed: nothing is lost")
		return &toldError{exitFailed, err}
	case errors.As(err, &halt):
		message := "stopped to protect data: nothing was confirmed to Postgres past what is named here"
		if !halt.Gap {
			message += ", so nothing is lost"
		}
		log.Error().Err(err).Str("what_to_do", halt.Hint).Msg(message)
		return &toldError{exitHalt, err}
	default:
		log.Error().Err(err).Msg("stopped by an unexpected failure: nothing is lost")
		return &toldError{exitFailed, err}
	}
}

// useOneProcessor keeps the Go runtime on one processor, unless GOMAXPROCS says otherwise. A row
// costs the relay less than it costs the walsender, which is one process, so a second processor
// does not make the relay faster. But it takes that processor from Postgres, and each switch costs.
func useOneProcessor() {
	if os.Getenv("GOMAXPROCS") == "" {
		runtime.GOMAXPROCS(1)
	}
}

// warnOfUnknown logs variables that nothing reads: a setting that is misspelled silently keeps its
// default. It is not an error, because others may set variables with this prefix.
func warnOfUnknown(log zerolog.Logger, environ []string) {
	unknown, err := config.UnknownVariables(environ)
	if err != nil {
		log.Warn().Err(err).Msg("cannot check for unknown environment variables")
	} else if len(unknown) > 0 {
		log.Warn().Strs("variables", unknown).Msg("these environment variables are not settings and have no effect")
	}
}

// runRelay runs a relay with its HTTP server until ctx ends or it halts.
func runRelay(ctx context.Context, cfg config.Config, log zerolog.Logger) error {
	latency := ops.NewLatency()
	relayConfig, err := newRelayConfig(cfg, log)
	if err != nil {
		return err
	}
	relayConfig.Observe = func(d time.Duration) { latency.Observe(max(d, 0).Seconds()) }
	r := relay.New(relayConfig)
	postgres := relayConfig.CDC.Postgres
	log.Info().Str("version", version()).Str("slot", cfg.Slot).Str("publication", cfg.Publication).
		Str("postgres", postgres.Host+":"+strconv.Itoa(int(postgres.Port))+"/"+postgres.Database).
		Strs("tables", cfg.Table).Strs("brokers", cfg.KafkaBrokers).Str("delivery", cfg.Delivery).Msg("walpost starts")
	if cfg.HTTPAddr != "" {
		server := ops.New(cfg.HTTPAddr, snapshots{r}, latency, log)
		if err := server.Start(ctx); err != nil {
			return httpError(cfg.HTTPAddr, err)
		}
		defer func() {
			closing, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Second)
			defer cancel()
			if err := server.Close(closing); err != nil {
				log.Debug().Err(err).Msg("the HTTP server did not close in time")
			}
		}()
	}
	return r.Run(ctx)
}

// httpError names the setting. The usual cause is a second relay on the host, which has the default
// address as well.
func httpError(addr string, err error) error {
	if errors.Is(err, syscall.EADDRINUSE) {
		return fmt.Errorf("another process, perhaps another walpost, listens on the HTTP address %s: "+
			"set WALPOST_HTTP_ADDR (--http-addr) to another one, or to nothing for no HTTP: %w", addr, err)
	}
	return fmt.Errorf("serve metrics and health on %s (WALPOST_HTTP_ADDR): %w", addr, err)
}

// newRelayConfig turns settings into what a relay needs.
func newRelayConfig(cfg config.Config, log zerolog.Logger) (relay.Config, error) {
	stream, err := newStreamConfig(cfg, log)
	if err != nil {
		return relay.Config{}, err
	}
	template, err := sink.ParseTemplate(cfg.Topic, cfg.Columns)
	if err != nil {
		return relay.Config{}, err
	}
	kafka, err := cfg.KafkaOptions()
	if err != nil {
		return relay.Config{}, err
	}
	dial, err := cfg.KafkaDialer()
	if err != nil {
		return relay.Config{}, err
	}
	return relay.Config{
		CDC: stream, Columns: cfg.Columns, Kafka: kafka, Dial: dial, Login: cfg.KafkaLogin(),
		Topic: template, StateTopic: cfg.StateTopic, CreateTopics: cfg.CreateTopics,
		ExactlyOnce: cfg.Delivery == config.ExactlyOnce,
		Interval:    cfg.TransactionInterval, Batch: int64(cfg.TransactionBytes),
		MaxInFlight: int64(cfg.MaxInFlightBytes), MaxRequest: int64(cfg.KafkaMaxRequestBytes),
		Linger: cfg.KafkaLinger, DrainTimeout: cfg.DrainTimeout, Log: log,
	}, nil
}

func newStreamConfig(cfg config.Config, log zerolog.Logger) (cdc.Config, error) {
	postgres, err := cfg.PostgresConfig()
	if err != nil {
		return cdc.Config{}, err
	}
	tables, err := cfg.Tables()
	if err != nil {
		return cdc.Config{}, err
	}
	template, err := sink.ParseTemplate(cfg.Topic, cfg.Columns)
	if err != nil {
		return cdc.Config{}, err
	}
	stream := cdc.Config{
		Postgres: postgres, Settings: cfg.PostgresConfig, Login: cfg.PostgresLogin, Hosts: &cdc.Hosts{},
		Slot: cfg.Slot, Publication: cfg.Publication,
		Columns: relay.EventColumns(cfg.Columns, template.Extra()), LocalOnly: cfg.Origin == config.OriginNone,
		Log: log.With().Str("component", "cdc").Logger(),
	}
	for _, t := range tables {
		stream.Tables = append(stream.Tables, cdc.Table{Schema: t.Schema, Name: t.Name})
	}
	return stream, nil
}

// checkColumns tells whether the columns that the settings name are there, and have types that
// events can be made of.
func checkColumns(cfg config.Config, view cdc.View) error {
	template, err := sink.ParseTemplate(cfg.Topic, cfg.Columns)
	if err != nil {
		return err
	}
	return relay.CheckColumns(cfg.Columns, template.Extra(), view)
}
