package cdc

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"sync/atomic"
	"time"

	"github.com/jackc/pglogrepl"
	"github.com/jackc/pgx/v5/pgconn"
)

const (
	// identifyTimeout bounds connecting and identifying the server.
	identifyTimeout = 20 * time.Second
	// startTimeout bounds START_REPLICATION: the server answers once it has the slot, before it
	// reads any WAL.
	startTimeout = time.Minute
)

// Conn is a replication connection to a server that was identified. One goroutine uses it.
type Conn struct {
	cfg    Config
	pg     *pgconn.PgConn
	reader *pacedReader

	System  string        // system identifier of the cluster
	History History       // its timelines
	timeout time.Duration // wal_sender_timeout of the session; zero = off

	warning       atomic.Pointer[pgconn.Notice] // the first one that raises doubt
	standbyNotice time.Time                     // when the log last said that the server awaits standbys
}

// Connect opens a replication connection and identifies the server. Errors that are not [Transient]
// need an operator.
func Connect(ctx context.Context, cfg Config) (*Conn, error) {
	ctx, cancel := context.WithTimeout(ctx, identifyTimeout)
	defer cancel()
	c := &Conn{cfg: cfg}
	pg, reader, err := cfg.connectReplication(ctx, c.notice)
	if err != nil {
		var refused *pgconn.PgError
		if !disagree(err) && settingsFault(err) == nil && errors.As(err, &refused) &&
			!transientState(refused.Code) && refused.Code != databaseClosed {
			return nil, cfg.serverError(refused)
		}
		return nil, cfg.connectError(err)
	}
	c.pg, c.reader = pg, reader
	if err := c.identify(ctx); err != nil {
		if errors.Is(err, ErrStandby) {
			cfg.Hosts.MarkUnfit()
		}
		c.Close()
		return nil, err
	}
	return c, nil
}

// Close ends the connection. Postgres frees the slot when it notices, which is at once.
func (c *Conn) Close() {
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	// We give up the connection, whatever the answer.
	_ = c.pg.Close(ctx)
}

func (c *Conn) identify(ctx context.Context) error {
	id, err := pglogrepl.IdentifySystem(ctx, c.pg)
	var refused *pgconn.PgError
	// A syntax error: the server behind a pooler got an ordinary connection.
	if errors.As(err, &refused) && refused.Code == "42601" {
		return poolerError(refused)
	}
	if err != nil {
		return queryError("identify system", err)
	}
	c.System = id.SystemID
	c.History = History{current: uint32(id.Timeline)}
	if id.Timeline > 1 {
		file, err := pglogrepl.TimelineHistory(ctx, c.pg, id.Timeline)
		if err != nil {
			return queryError(fmt.Sprintf("read history of timeline %d", id.Timeline), err)
		}
		if c.History, err = parseHistory(uint32(id.Timeline), file.Content); err != nil {
			return err
		}
	}
	return c.settings(ctx)
}

// queryError is the failure of a query. If the server did not answer, the connection broke,
// whatever the driver calls it.
func queryError(what string, err error) error {
	var refused *pgconn.PgError
	if errors.As(err, &refused) {
		return fmt.Errorf("%s: %w", what, err)
	}
	return &brokenError{what, err}
}

// settings reads what the stream depends on.
func (c *Conn) settings(ctx context.Context) error {
	results, err := c.pg.Exec(ctx,
		"SELECT setting, pg_is_in_recovery() FROM pg_settings WHERE name = 'wal_sender_timeout'").ReadAll()
	if err != nil {
		return queryError("read wal_sender_timeout", err)
	}
	if len(results) != 1 || len(results[0].Rows) != 1 {
		return errors.New("read wal_sender_timeout: no such setting")
	}
	if string(results[0].Rows[0][1]) != "f" {
		return ErrStandby
	}
	ms, err := strconv.Atoi(string(results[0].Rows[0][0]))
	if err != nil {
		return fmt.Errorf("read wal_sender_timeout: %w", err)
	}
	c.timeout = time.Duration(ms) * time.Millisecond
	return nil
}

// Start takes the slot and starts the stream: transactions that end after from arrive whole and in
// commit order. binary asks for columns in their binary form. An error that wraps [ErrSlotInUse]
// means that another relay has the slot. Afterwards the Conn is good for Close only.
func (c *Conn) Start(ctx context.Context, from LSN, binary bool) (*Stream, error) {
	ctx, cancel := context.WithTimeout(ctx, startTimeout)
	defer cancel()
	c.warning.Store(nil) // a warning at connect, as of a collation, is not about the stream
	args := []string{
		"proto_version '1'",
		// Quoted twice: a name in a list in a string.
		"publication_names " + quoteLiteral(quoteIdent(c.cfg.Publication)),
	}
	if binary {
		args = append(args, "binary 'true'")
	}
	err := pglogrepl.StartReplication(ctx, c.pg, c.cfg.Slot, from, pglogrepl.StartReplicationOptions{
		Mode: pglogrepl.LogicalReplication, PluginArgs: args,
	})
	if err != nil {
		return nil, c.cfg.startError(err)
	}
	if n := c.warning.Load(); n != nil {
		return nil, c.cfg.warningError(n)
	}
	return newStream(c, from), nil
}
