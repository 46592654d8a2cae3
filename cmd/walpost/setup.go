package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/rs/zerolog"

	"github.com/walpost/walpost/cdc"
	"github.com/walpost/walpost/internal/config"
	"github.com/walpost/walpost/migrations"
)

// setUp makes what is missing, the slot last: a slot that is older than its publication reads
// nothing of it. If the slot is older than the publication, or than a change that the operator
// accepts, it waits for the transactions that wrote before, so that nothing is in doubt afterwards.
func setUp(ctx context.Context, cfg config.Config, options migrations.Options, accept bool, stdout io.Writer) error {
	stream, err := newStreamConfig(cfg, zerolog.Nop())
	if err != nil {
		return err
	}
	older, err := foundBefore(ctx, cfg, stream, accept)
	if err != nil {
		return err
	}
	if err := replicates(ctx, stream); err != nil {
		return fmt.Errorf("%w; nothing was changed", err)
	}
	conn, closeConn, err := connect(ctx, cfg, stream)
	if err != nil {
		return err
	}
	defer closeConn()
	if options.Failover {
		if err := cdc.CheckFailover(conn); err != nil {
			return err
		}
	}
	altered, err := setUpTables(ctx, cfg, stream, conn, options, stdout)
	if err != nil {
		return err
	}
	made, err := setUpSlot(ctx, conn, options, stdout)
	if err != nil {
		return err
	}
	if !made && (altered || accept) {
		if err := cdc.AwaitWriters(ctx, conn, waitingFor(stdout, options.Slot)); err != nil {
			return err
		}
	}
	if older {
		if err := cdc.AdvanceSlot(ctx, conn, options.Slot); err != nil {
			return err
		}
		fmt.Fprintf(stdout, "slot %s: moved to the publication %s; rows inserted before it are not in the stream\n",
			options.Slot, options.Publication)
	}
	return checkSetUp(ctx, cfg, stream, stdout)
}

// replicates returns an error if no relay could ever replicate from the address: a slot made there
// would only retain WAL. Other refusals may be gone by the time a relay starts.
func replicates(ctx context.Context, stream cdc.Config) error {
	conn, err := cdc.Connect(ctx, stream)
	if err == nil {
		conn.Close()
		return nil
	}
	var settings *cdc.SettingsError
	if errors.As(err, &settings) {
		return settings
	}
	return nil
}

// connect opens a connection for SQL to the address that answered an inspection. The returned
// function closes it.
func connect(ctx context.Context, cfg config.Config, stream cdc.Config) (*pgx.Conn, func(), error) {
	settings, err := cfg.PostgresConnConfig()
	if err != nil {
		return nil, nil, err
	}
	stream.Prepare(&settings.Config)
	stream.Hosts.Nearest(ctx, &settings.Config)
	conn, err := pgx.ConnectConfig(ctx, settings)
	if err != nil {
		return nil, nil, cdc.ConnectError(settings.Host, settings.Port, err)
	}
	return conn, func() {
		closing, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Second)
		defer cancel()
		_ = conn.Close(closing) // everything is committed or has failed by now
	}, nil
}

// foundBefore inspects what is there before anything is made, as a relay would. older says that the
// slot will be older than its publication: rows committed between the two are not in the stream,
// and some versions of Postgres cannot even decode past them.
func foundBefore(ctx context.Context, cfg config.Config, stream cdc.Config, accept bool) (older bool, err error) {
	view, err := cdc.Inspect(ctx, stream)
	if err != nil {
		return false, err
	}
	for tries := 0; view.Timeline == 0 && tries < 3; tries++ { // of several hosts the next one may be the primary
		if view, err = cdc.Inspect(ctx, stream); err != nil {
			return false, err
		}
	}
	if view.Timeline == 0 {
		return false, nil // a standby: the report says so
	}
	if err := view.CheckFound(stream); err != nil {
		var stop *cdc.StopError
		if errors.As(err, &stop) && view.Slot == nil && stop.Mend != "" { // there is no history to look into
			err = &cdc.StopError{What: stop.What, Hint: stop.Mend}
		}
		return false, fmt.Errorf("%w; nothing was changed", err)
	}
	if view.Slot == nil {
		return false, nil
	}
	if view.Publication != nil {
		return accept && madeAnew(ctx, cfg, view), nil
	}
	if !accept {
		return false, &cdc.StopError{
			What: fmt.Sprintf("slot %q is older than publication %q, which does not exist: "+
				"rows inserted before it is made are not in the stream; nothing was "+
				"changed", stream.Slot, stream.Publication),
			Hint: fmt.Sprintf("if no relay has read the slot yet, run SELECT pg_drop_replication_slot('%s') "+
				"and this command again; "+
				"otherwise run `walpost init --accept-gap`: see \"A gap\" in docs/OPERATIONS.md", stream.Slot),
		}
	}
	return true, nil
}

// madeAnew reports whether the publication is newer than the position that a relay has stored, and
// the slot was not moved since. If it cannot tell it says no: the relay then stops at its start and
// says why.
func madeAnew(ctx context.Context, cfg config.Config, view cdc.View) bool {
	store, err := openStore(cfg, view.System, zerolog.Nop())
	if err != nil {
		return false
	}
	defer store.Close()
	source := view.System + "/" + cfg.Slot
	states, _, err := store.Peek(ctx, func(s string) bool { return s == source })
	state, stored := states[source]
	return err == nil && stored && view.MadeAnew(state.Publication) && view.Slot.Confirmed() <= state.End
}

// setUpTables makes the tables and the publication, and reports whether it changed anything.
func setUpTables(
	ctx context.Context, cfg config.Config, stream cdc.Config,
	conn *pgx.Conn, options migrations.Options, stdout io.Writer,
) (altered bool, err error) {
	defer sayWhoBlocks(ctx, cfg, stream, conn.PgConn().PID(), stdout)()
	report, err := migrations.Apply(ctx, conn, options)
	var problem *migrations.ProblemError
	if errors.As(err, &problem) {
		for i, f := range report.Findings {
			if f.Level == migrations.Made { // it was rolled back
				report.Findings[i].Text = "would be " + f.Text
			}
		}
		return false, &toldError{exitFailed, printReport(stdout, report, err)}
	}
	if err != nil {
		return false, err
	}
	made := func(f migrations.Finding) bool { return f.Level == migrations.Made }
	return slices.ContainsFunc(report.Findings, made), printReport(stdout, report, nil)
}

// checkSetUp inspects the database as a relay does at its start, so that init already reports what
// would stop the relay and what it would warn of.
func checkSetUp(ctx context.Context, cfg config.Config, stream cdc.Config, stdout io.Writer) error {
	view, err := cdc.Inspect(ctx, stream)
	if err != nil {
		return err
	}
	if err := view.Check(stream); err != nil {
		return err
	}
	if err := checkColumns(cfg, view); err != nil {
		return err
	}
	for _, w := range view.Warnings(stream) {
		if _, err := fmt.Fprintf(stdout, "warning: %s\n    %s\n", w.What, w.Hint); err != nil {
			return err
		}
	}
	return nil
}

// sayWhoBlocks prints who holds a lock that a session waits for, each once, until stop is called.
func sayWhoBlocks(
	ctx context.Context, cfg config.Config, stream cdc.Config, pid uint32, stdout io.Writer,
) (stop func()) {
	ctx, cancel := context.WithCancel(ctx)
	done := make(chan struct{})
	go func() {
		defer close(done)
		select {
		case <-ctx.Done():
			return
		case <-time.After(time.Second):
		}
		conn, closeConn, err := connect(ctx, cfg, stream)
		if err != nil {
			return // the session that waits reports what is wrong with the server
		}
		defer closeConn()
		said := map[string]bool{}
		for {
			for _, holder := range cdc.Blocking(ctx, conn, pid) {
				if !said[holder] {
					said[holder] = true
					fmt.Fprintf(stdout, "waiting for a lock that %s holds\n", holder)
				}
			}
			select {
			case <-ctx.Done():
				return
			case <-time.After(time.Second):
			}
		}
	}()
	return func() { cancel(); <-done }
}

// waitingFor prints which transaction a command waits for.
func waitingFor(stdout io.Writer, slot string) func(holder string) {
	return func(holder string) {
		fmt.Fprintf(stdout, "slot %s: waiting for transactions that are open now; the oldest: %s\n", slot, holder)
	}
}

func setUpSlot(
	ctx context.Context, conn *pgx.Conn, options migrations.Options, stdout io.Writer,
) (made bool, err error) {
	made, err = cdc.CreateSlot(ctx, conn, options.Slot, options.Failover, waitingFor(stdout, options.Slot))
	if err != nil {
		return false, err
	}
	text := "found"
	if made {
		text = "created"
	} else if options.Failover {
		changed, err := cdc.EnableFailover(ctx, conn, options.Slot)
		if err != nil {
			return false, err
		}
		if changed {
			text = "found, and synchronized to standbys from now on"
		}
	}
	_, err = fmt.Fprintf(stdout, "slot %s: %s\n", options.Slot, text)
	return made, err
}

func printReport(w io.Writer, report migrations.Report, err error) error {
	for _, line := range report.Lines() {
		if _, err := fmt.Fprintln(w, line); err != nil {
			return err
		}
	}
	return err
}
