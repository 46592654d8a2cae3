package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/rs/zerolog"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/walpost/walpost/cdc"
	"github.com/walpost/walpost/checkpoint"
	"github.com/walpost/walpost/internal/config"
	"github.com/walpost/walpost/internal/relay"
	"github.com/walpost/walpost/migrations"
)

type initCommand struct {
	config.Config
	Print     bool `help:"Print the SQL and change nothing, for databases where an owner applies it; needs no --postgres-url."`
	Failover  bool `help:"Create a failover slot, which standbys synchronize (Postgres 17 and later)."`
	AcceptGap bool `help:"Accept the slot and the publication as they are now: records the publication, and the slot's position if it is ahead of the stored one. Deal with the rows that the stream lacks first. Needs --kafka-brokers."`
}

// OptionalSettings implements config.Lenient: only --accept-gap talks to Kafka, and checks for
// itself.
func (*initCommand) OptionalSettings() []string { return []string{"kafka-brokers", "postgres-url"} }

// UnusedSettings implements config.Sparing.
func (*initCommand) UnusedSettings() []string {
	return []string{
		"create-topics", "delivery", "kafka-linger", "transaction-interval", "transaction-bytes",
		"max-in-flight-bytes", "drain-timeout", "http-addr",
	}
}

func (c *initCommand) execute(ctx context.Context, stdout, stderr io.Writer) error {
	options, err := newMigrationOptions(c.Config, c.Failover)
	if err != nil {
		return err
	}
	if faults := c.faults(); len(faults) > 0 {
		for _, fault := range faults {
			fmt.Fprintln(stderr, "walpost:", fault)
		}
		return &toldError{exitUsage, errors.New("settings are wrong")}
	}
	if c.Print {
		script, err := migrations.SQL(options)
		if err != nil {
			return err
		}
		_, err = io.WriteString(stdout, script)
		return err
	}
	if err := setUp(ctx, c.Config, options, c.AcceptGap, stdout); err != nil {
		return err
	}
	if c.AcceptGap {
		return acceptGap(ctx, c.Config, stdout, stderr)
	}
	return nil
}

func (c *initCommand) faults() []string {
	if c.Print && c.AcceptGap {
		return []string{"--accept-gap: cannot be used with --print, which changes nothing: run init twice, " +
			"once with each"}
	}
	if c.Print {
		return nil
	}
	var faults []string
	if c.PostgresURL == "" {
		faults = append(faults, "--postgres-url (WALPOST_POSTGRES_URL, postgres_url): is required, except with --print")
	}
	if c.AcceptGap && len(c.KafkaBrokers) == 0 {
		faults = append(faults, "--kafka-brokers (WALPOST_KAFKA_BROKERS, kafka_brokers): is required with --accept-gap")
	}
	return faults
}

func newMigrationOptions(cfg config.Config, failover bool) (migrations.Options, error) {
	tables, err := cfg.Tables()
	if err != nil {
		return migrations.Options{}, err
	}
	options := migrations.Options{
		Columns: cfg.Columns, Publication: cfg.Publication, Slot: cfg.Slot, Failover: failover,
	}
	for _, t := range tables {
		options.Tables = append(options.Tables, migrations.Table{Schema: t.Schema, Name: t.Name})
	}
	return options, nil
}

// acceptGap records the publication as it is now, and the slot's position if a relay could not go
// on from the stored one. It holds the slot meanwhile, so that no relay moves either.
func acceptGap(ctx context.Context, cfg config.Config, stdout, stderr io.Writer) error {
	log := newLogger(cfg, stderr)
	stream, err := newStreamConfig(cfg, log)
	if err != nil {
		return err
	}
	conn, err := cdc.Connect(ctx, stream)
	if err != nil {
		return err
	}
	defer conn.Close()
	if _, err := conn.Start(ctx, 0, false); err != nil {
		return fmt.Errorf("accept the gap of slot %q (if a relay runs, stop it first): %w", cfg.Slot, err)
	}
	view, err := cdc.Inspect(ctx, stream)
	if err != nil {
		return err
	}
	if err := view.CheckServer(conn.System, conn.History.Current()); err != nil {
		return err
	}
	if err := view.Check(stream); err != nil {
		return err
	}
	store, err := openStore(cfg, conn.System, log)
	if err != nil {
		return err
	}
	defer store.Close()
	if cfg.Delivery == config.ExactlyOnce {
		if err := fence(ctx, cfg, conn.System); err != nil {
			return explain(ctx, cfg, conn.System, err)
		}
	}
	before, stored, err := store.Load(ctx)
	if err != nil {
		return explain(ctx, cfg, conn.System, err)
	}
	position := acceptedPosition(before, stored, view, conn.History)
	state := checkpoint.State{
		Position: position, Timeline: conn.History.At(position.Furthest()),
		At: time.Now(), Publication: view.Identity(),
	}
	saving, cancel := context.WithTimeout(ctx, brokersTime)
	defer cancel()
	if err := store.Reset(saving, before, state); err != nil {
		return explain(ctx, cfg, conn.System, fmt.Errorf("%w: run this command again, until it prints the "+
			"position", err))
	}
	was := "none"
	if stored {
		was = before.String()
	}
	_, err = fmt.Fprintf(stdout, "position in topic %s: %s, before: %s\npublication %s: recorded as it is now\n",
		cfg.StateTopic, position, was, cfg.Publication)
	return err
}

// fence takes the transactional id from a relay that has released the slot and may still be
// committing a Kafka transaction, with a position in it.
func fence(ctx context.Context, cfg config.Config, system string) error {
	options, err := cfg.KafkaOptions()
	if err != nil {
		return err
	}
	dial, err := cfg.KafkaDialer()
	if err != nil {
		return err
	}
	id := relay.TransactionalID(system + "/" + cfg.Slot)
	client, err := kgo.NewClient(append(options, kgo.Dialer(dial), kgo.TransactionalID(id))...)
	if err != nil {
		return err
	}
	defer client.Close()
	ctx, cancel := context.WithTimeout(ctx, brokersTime)
	defer cancel()
	if _, _, err := client.ProducerID(ctx); err != nil {
		return fmt.Errorf("fence transactional id %q: %w", id, err)
	}
	return nil
}

// acceptedPosition is the stored position if a relay could go on from there, else the slot's.
func acceptedPosition(stored checkpoint.State, known bool, view cdc.View, history cdc.History) checkpoint.Position {
	start, err := checkpoint.Resume(stored, known, checkpoint.Server{
		ConfirmedFlush: view.Slot.Confirmed(), WALEnd: view.WALEnd, Timeline: history.Current(), Ended: history.Ended,
	})
	if err != nil { // a gap, or a restored server: this is what the operator accepts
		return checkpoint.Position{End: view.Slot.Confirmed()}
	}
	return start.Position
}

// openStore returns the store of the source that a server and a slot are.
func openStore(cfg config.Config, system string, log zerolog.Logger) (*checkpoint.Store, error) {
	options, err := cfg.KafkaOptions()
	if err != nil {
		return nil, err
	}
	dial, err := cfg.KafkaDialer()
	if err != nil {
		return nil, err
	}
	return checkpoint.NewStore(append(options, kgo.Dialer(dial)), cfg.StateTopic, system+"/"+cfg.Slot, log)
}
