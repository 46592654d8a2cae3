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
	Postgres *pgconn.Config // where and as whom; never modified
	// Settings reads Postgres anew for each connection: a password, a certificate or a service file may have changed. Nil = they do not.
	Settings func() (*pgconn.Config, error)
	// Login says where the password comes from, for whoever has to mend one that is refused. Nil = not known.
	Login       func() string
	Hosts       *Hosts // which of several addresses answers; shared by all connections of a process. Nil = nobody remembers
	Slot        string // must match ^[a-z0-9_]{1,63}$: it goes into replication commands unquoted
	Publication string
	Tables      []Table
	Columns     []string // of the tables, that events are made of, the id first; those that a table lacks do not count
	LocalOnly   bool     // rows that a subscription has written are no events
	Log         zerolog.Logger
}

// connectTimeout bounds a connection attempt if the settings do not.
const connectTimeout = 10 * time.Second
