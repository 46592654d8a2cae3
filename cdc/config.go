package cdc

import (
	"bufio"
	"io"
	"time"

	"github.com/jackc/pglogrepl"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgproto3"
	"github.com/rs/zerolog"
)

// LSN is a position in the WAL, in bytes.
type LSN = pglogrepl.LSN

// Table names an outbox table.
type Table struct{ Schema, Name string }

func (t Table) String() string { return t.Schema + "." + t.Name }

// quoted is the table as SQL takes it.
func (t Table) quoted() string { return quoteIdent(t.Schema) + "." + quoteIdent(t.Name) }

// Config says which stream to read.
type Config struct {
	Postgres    *pgconn.Config // where and as whom; never modified
	Slot        string         // must match ^[a-z0-9_]{1,63}$: it goes into replication commands unquoted
	Publication string
	Tables      []Table
	Columns     []string // of the tables, that events are made of, the id first; those that a table lacks do not count
	LocalOnly   bool     // rows that a subscription has written are no events
	Log         zerolog.Logger
}

const (
	// connectTimeout bounds a connection attempt if the settings do not.
	connectTimeout = 10 * time.Second
	// readBuffer is what one read of the socket may bring.
	readBuffer = 256 << 10
)

// replication returns the settings of the replication connection. Its frontend reads through r.
func (c Config) replication(r *pacedReader, notice func(*pgconn.Notice)) *pgconn.Config {
	cfg := c.sql()
	cfg.RuntimeParams["replication"] = "database"
	// Text forms depend on settings of the session: this one decides how a bytea looks.
	cfg.RuntimeParams["bytea_output"] = "hex"
	cfg.OnNotice = func(_ *pgconn.PgConn, n *pgconn.Notice) { notice(n) }
	cfg.BuildFrontend = func(conn io.Reader, w io.Writer) *pgproto3.Frontend {
		r.conn = conn
		return pgproto3.NewFrontend(bufio.NewReaderSize(r, readBuffer), w)
	}
	return cfg
}

// sql returns the settings of an ordinary connection.
func (c Config) sql() *pgconn.Config {
	cfg := c.Postgres.Copy()
	if cfg.ConnectTimeout == 0 {
		cfg.ConnectTimeout = connectTimeout
	}
	if cfg.RuntimeParams == nil {
		cfg.RuntimeParams = map[string]string{}
	}
	if cfg.RuntimeParams["application_name"] == "" {
		cfg.RuntimeParams["application_name"] = "walpost " + c.Slot
	}
	return cfg
}
