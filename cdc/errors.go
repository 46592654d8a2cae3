package cdc

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"strconv"
	"strings"

	"github.com/jackc/pgx/v5/pgconn"
)

// Functions of Postgres that tell an error from others of the same code. Its message may be in any
// language.
const (
	checksDatabase   = "CheckMyDatabase"     // refuses a role without the right to connect
	findsPublication = "get_publication_oid" // misses a publication
)

// databaseClosed is, at connect, the SQLSTATE of a database that takes no connections for a while.
const databaseClosed = "55000"

// ErrSlotInUse says that another process reads the slot, so that this relay waits.
var ErrSlotInUse = errors.New("the slot is in use by another process")

// ErrStopping says that the server is shutting down and waits for us to end the stream.
var ErrStopping = errors.New("the server is shutting down")

// Stopping reports whether err, of a connection attempt during a stream, says that the server of
// the stream takes no further connections: it is shutting down and waits for us. Of several
// addresses, that of another server may say the same while it starts. Then ours says something
// else, or nothing in time.
func Stopping(err error) bool {
	stopping, other := answers(err)
	return stopping && !other
}

// answers reports what the addresses answered: that they take no connections, or anything else.
func answers(err error) (stopping, other bool) {
	switch e := err.(type) { //nolint:errorlint // errors.As finds only the first of several
	case *pgconn.PgError:
		return e.Code == "57P03", e.Code != "57P03"
	case interface{ Unwrap() []error }:
		for _, one := range e.Unwrap() {
			s, o := answers(one)
			stopping, other = stopping || s, other || o
		}
		return stopping, other
	case interface{ Unwrap() error }:
		if inner := e.Unwrap(); inner != nil {
			return answers(inner)
		}
	}
	return false, os.IsTimeout(err) || errors.Is(err, context.DeadlineExceeded)
}

// ErrStandby says that the server is in recovery: what it has is not final, and it may not have the
// slot yet.
var ErrStandby = errors.New("the server is a standby: waiting for its promotion, or for the primary " +
	"(in a list of hosts, target_session_attrs=primary finds it)")

// StopError says that to continue could lose events: an operator must act first.
type StopError struct {
	What string // what was found
	Hint string // the command or SQL that helps
	Mend string // the part of Hint that is enough while there is no slot yet; empty = all of it
	Gap  bool   // the stream may lack events, now or once it continues
	Err  error  // the cause, if there is one
}

func (e *StopError) Error() string {
	if e.Err != nil {
		return e.What + ": " + e.Err.Error()
	}
	return e.What
}

func (e *StopError) Unwrap() error { return e.Err }

// Transient reports whether an error is an outage to wait for. What is not known to be transient is
// permanent.
func Transient(err error) bool {
	var stop *StopError
	var settings *SettingsError
	switch {
	case errors.As(err, &stop):
		return false
	case disagree(err): // also with the settings
		return true
	case errors.As(err, &settings):
		return false
	case errors.Is(err, ErrSlotInUse), errors.Is(err, ErrStopping), errors.Is(err, ErrStandby):
		return true
	}
	var broken *brokenError
	if errors.As(err, &broken) {
		return true
	}
	var pg *pgconn.PgError
	if errors.As(err, &pg) {
		return transientState(pg.Code)
	}
	var connect *pgconn.ConnectError
	var network net.Error
	return errors.As(err, &connect) || errors.As(err, &network)
}

// transientState reports whether an SQLSTATE is that of an outage.
func transientState(code string) bool {
	switch code {
	case "58P01", "XX000", "XX001", "XX002": // a file that is gone, or damage
		return false
	case "55006", "55P03": // object in use, lock not available
		return true
	case "25P03", "25P04": // idle_in_transaction_session_timeout, transaction_timeout
		return true
	}
	switch code[:min(2, len(code))] {
	case "08", // connection
		"28", // authentication: passwords are rotated
		"3D", // the database is not there yet
		"40", // rolled back
		"53", // insufficient resources
		"57", // operator intervention: shutdown, terminated session, cancelled statement
		"58": // system error
		return true
	}
	return false
}

// brokenError is a connection that ended or fell silent, or an inspection that failed. It is an
// outage.
type brokenError struct {
	what string
	err  error
}

func (e *brokenError) Error() string {
	if e.err == nil {
		return e.what
	}
	return e.what + ": " + e.err.Error()
}

func (e *brokenError) Unwrap() error { return e.err }

// ConnectError says why there is no connection. With sslmode=prefer, the driver first reports that
// the server has no TLS, however the attempt without TLS ended. Then the server's own answer
// counts.
func ConnectError(host string, port uint16, err error) error {
	if fault := settingsFault(err); fault != nil {
		return fault
	}
	var refused *pgconn.PgError
	noTLS := strings.Contains(err.Error(), "server refused TLS connection")
	switch {
	case noTLS && errors.As(err, &refused):
		return fmt.Errorf("connect to Postgres at %s: %w", net.JoinHostPort(host, strconv.Itoa(int(port))), refused)
	case noTLS:
		return fmt.Errorf("connect to Postgres: %w (the server has no TLS: set ssl = on there, "+
			"or choose an sslmode; the default is verify-full, except on the local host)", err)
	}
	return fmt.Errorf("connect to Postgres: %w", err)
}

func (c Config) connectError(err error) error {
	if disagree(err) {
		return fmt.Errorf("connect to Postgres: %w", err)
	}
	var refused *pgconn.PgError
	if errors.As(err, &refused) && refused.Code == databaseClosed {
		return &brokenError{"connect to Postgres", refused}
	}
	if refused != nil && refused.Routine == checksDatabase && refused.Code == "42501" {
		return c.serverError(refused)
	}
	if refused != nil && strings.HasPrefix(refused.Code, "28") && c.Login != nil {
		return fmt.Errorf("connect to Postgres: role %q is refused, with the password from %s: %w",
			c.Postgres.User, c.Login(), err)
	}
	return ConnectError(c.Postgres.Host, c.Postgres.Port, err)
}

// startError translates a refusal of START_REPLICATION.
func (c Config) startError(err error) error {
	var pg *pgconn.PgError
	if !errors.As(err, &pg) { // the server did not answer
		return &brokenError{fmt.Sprintf("start replication on slot %q", c.Slot), err}
	}
	return c.serverError(pg)
}

// serverError translates an error of the walsender, in answer to a command or on the stream.
func (c Config) serverError(pg *pgconn.PgError) error {
	switch {
	case pg.Routine == awaitsStandbys: // a server that shuts down stops waiting for its standbys
		return &brokenError{"Postgres ended the stream while it waited for a standby", pg}
	case pg.Code == "55006":
		return fmt.Errorf("slot %q: %w (%s)", c.Slot, ErrSlotInUse, pg.Message)
	case pg.Code == "42704" && pg.Routine == findsPublication:
		return c.publicationMissing(pg)
	case pg.Code == "42704":
		return c.slotMissing(pg)
	case pg.Code == "55000":
		return &StopError{
			What: fmt.Sprintf("Postgres refuses to stream from slot %q", c.Slot),
			Hint: c.recreateHint(),
			Gap:  true,
			Err:  pg,
		}
	case pg.Code == "42501" && pg.Routine == checksDatabase:
		return &StopError{
			What: fmt.Sprintf("role %q may not connect to database %q", c.Postgres.User, c.Postgres.Database),
			Hint: fmt.Sprintf("GRANT CONNECT ON DATABASE %s TO %s; then start walpost",
				quoteIdent(c.Postgres.Database), quoteIdent(c.Postgres.User)),
			Err: pg,
		}
	case pg.Code == "42501":
		return &StopError{
			What: fmt.Sprintf("role %q may not replicate", c.Postgres.User),
			Hint: fmt.Sprintf("as a superuser: ALTER ROLE %s REPLICATION", quoteIdent(c.Postgres.User)),
			Err:  pg,
		}
	case transientState(pg.Code):
		return fmt.Errorf("slot %q: %w", c.Slot, pg)
	case pg.Code == "22P05" || pg.Code == "22021":
		return &StopError{
			What: fmt.Sprintf("Postgres cannot write a text on the stream of slot %q in UTF-8", c.Slot),
			Hint: "the first unpublished row of the outbox has a character that UTF-8 lacks. " +
				"Skip it with its transaction: docs/OPERATIONS.md#a-row-that-can-never-be-published",
			Err: pg,
		}
	default:
		return &StopError{
			What: fmt.Sprintf("Postgres ended the stream of slot %q", c.Slot),
			Hint: "find this error in the log of Postgres and remove its cause. " +
				"Then start walpost: it continues from the same position",
			Err: pg,
		}
	}
}

func (c Config) slotMissing(err error) error {
	return &StopError{
		What: fmt.Sprintf("replication slot %q does not exist", c.Slot),
		Hint: "on a new database, run `walpost init`. If the slot existed before, " + gapHint,
		Gap:  true,
		Err:  err,
	}
}

func (c Config) publicationMissing(err error) error {
	return &StopError{
		What: fmt.Sprintf("publication %q does not exist, or did not exist where the slot reads", c.Publication),
		Hint: "run `walpost init --accept-gap`: it makes the publication if it is missing, " +
			"and moves the slot behind it. Start walpost, and only then insert again what was not published: " +
			"docs/OPERATIONS.md#a-gap",
		Gap: true,
		Err: err,
	}
}

// gapHint says how an operator makes another slot and fills the gap. walpost never does it by
// itself: everything between the old position and the new slot would be lost in silence.
const gapHint = "run `walpost init --accept-gap`, start walpost, and then insert again what was not published: " +
	"docs/OPERATIONS.md#a-gap. It is in the outbox table unless it was deleted"

// recreateHint says how an operator replaces a slot that cannot be read any more.
func (c Config) recreateHint() string {
	return fmt.Sprintf("drop the slot (SELECT pg_drop_replication_slot('%s')), ", c.Slot) + gapHint
}

// quoteIdent quotes an SQL identifier.
func quoteIdent(s string) string { return `"` + strings.ReplaceAll(s, `"`, `""`) + `"` }

// quoteLiteral quotes an SQL string. With a backslash in it, it uses the escape syntax, which means
// the same whatever the server's settings.
func quoteLiteral(s string) string {
	s = strings.ReplaceAll(s, `'`, `''`)
	if strings.Contains(s, `\`) {
		return ` E'` + strings.ReplaceAll(s, `\`, `\\`) + `'`
	}
	return `'` + s + `'`
}
