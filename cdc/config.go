package cdc

import (
	"time"

	"github.com/jackc/pglogrepl"
	"github.com/jackc/pgx/v5/pgconn"
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
	// How to connect.

	// Postgres is the server and the role; never modified.
	Postgres *pgconn.Config
	// Settings reads Postgres anew for each connection: a password, a certificate or a service file
	// may have changed. Nil = they never change.
	Settings func() (*pgconn.Config, error)
	// Login says where the password comes from, for whoever has to correct one that is refused. Nil
	// = not known.
	Login func() string
	// Hosts remembers which of several addresses answers. All connections of a process share it.
	// Nil = remember nothing.
	Hosts *Hosts

	// What to read.

	// Slot must match ^[a-z0-9_]{1,63}$: replication commands take it unquoted.
	Slot        string
	Publication string
	Tables      []Table
	// Columns are the columns that events are made of, the id first. Those that a table lacks do
	// not count.
	Columns []string
	// LocalOnly says that rows written by a subscription are no events.
	LocalOnly bool

	Log zerolog.Logger
}

// connectTimeout bounds a connection attempt if the settings do not.
const connectTimeout = 10 * time.Second
