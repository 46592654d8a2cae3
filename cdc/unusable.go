package cdc

import (
	"errors"
	"fmt"
	"strings"
	"unicode"

	"github.com/jackc/pgx/v5/pgconn"
)

// settingsFault translates a refusal of a connection that is a fault of its settings, so that
// waiting does not help. nil = it is none.
func settingsFault(err error) error {
	var settings *SettingsError
	if errors.As(err, &settings) {
		return settings
	}
	var pg *pgconn.PgError
	if !errors.As(err, &pg) {
		return nil
	}
	switch {
	case refusesOurSettings(pg):
		return &SettingsError{
			What: fmt.Sprintf("the server is older than Postgres %d, or not Postgres, and walpost needs %[1]d or later",
				oldestMajor),
			Hint: newerServerHint,
			Err:  pg,
		}
	case pg.Code == "08P01" && fromPgBouncer(pg.Message):
		return poolerError(pg)
	case pg.Code == "0A000" && strings.Contains(pg.Message, "RDS Proxy"):
		return poolerError(pg)
	case pg.Code == "42704", // unrecognized configuration parameter
		pg.Code == "42601",                     // malformed options=
		pg.Code == "22023", pg.Code == "22P02", // a wrong value
		pg.Code == "55P02", // only the start of the server can set it
		// Only superusers can set it.
		pg.Code == "42501" && strings.HasPrefix(pg.Routine, "set_config_"):
		return &SettingsError{
			What: "Postgres refuses a parameter of the connection",
			Hint: "correct or remove it: in WALPOST_POSTGRES_URL, in options= there, or in PGOPTIONS",
			Err:  pg,
		}
	}
	return nil
}

// oldestMajor is the oldest version of Postgres whose streams walpost reads.
const oldestMajor = 14

const newerServerHint = "connect to a server of a later version"

// refusesOurSettings reports whether a server refused a setting of ours, which every supported
// server knows. The message may be in any language, but it has the name.
func refusesOurSettings(err *pgconn.PgError) bool {
	if err.Code != "42704" {
		return false
	}
	noName := func(r rune) bool {
		return r != '_' && r != '.' && !unicode.IsLetter(r) && !unicode.IsDigit(r)
	}
	for _, word := range strings.FieldsFunc(err.Message, noName) {
		if _, ours := sessionSettings[word]; ours {
			return true
		}
	}
	return false
}

// fromPgBouncer knows PgBouncer's messages, which are always in English: it refuses what our
// sessions send, or, where it is told to ignore that, a database that it has no settings for.
func fromPgBouncer(message string) bool {
	return strings.Contains(message, "startup parameter") || strings.Contains(strings.ToLower(message), "bouncer")
}

// readBack reads a setting that we sent at the start of the session. Its default is another value.
const readBack = "SELECT pg_catalog.current_setting('client_min_messages')"

// checkSettingsArrived refuses a server that did not get the settings of our session. A pooler may
// be told to ignore what it does not know (ignore_startup_parameters of PgBouncer), or do so by
// itself. The server would then, for one, not send warnings of skipped rows. To set them later
// would not help: the next statement may run on another of the pooler's connections.
func checkSettingsArrived(result *pgconn.Result) error {
	if len(result.Rows) != 1 || len(result.Rows[0]) != 1 {
		return nil
	}
	const name = "client_min_messages"
	if got := string(result.Rows[0][0]); got != sessionSettings[name] {
		return poolerError(fmt.Errorf("%s is %q, although %q was sent", name, got, sessionSettings[name]))
	}
	return nil
}

// checkVersion refuses a server whose version is too old. It accepts one whose version it cannot
// read.
func checkVersion(pg *pgconn.PgConn) error {
	if major := serverMajor(pg); major != 0 && major < oldestMajor {
		return &SettingsError{
			What: fmt.Sprintf("the server is Postgres %s, and walpost needs %d or later",
				pg.ParameterStatus("server_version"), oldestMajor),
			Hint: newerServerHint,
		}
	}
	return nil
}

// SettingsError says that the settings of the connection cannot work: waiting does not help, and
// nothing is lost.
type SettingsError struct {
	What string // what was found
	Hint string // what to change
	Err  error  // the cause, if there is one
}

func (e *SettingsError) Error() string {
	if e.Err != nil {
		return e.What + ": " + e.Err.Error()
	}
	return e.What
}

func (e *SettingsError) Unwrap() error { return e.Err }

// poolerError says that a connection pooler answers where a Postgres should.
func poolerError(err error) error {
	return &SettingsError{
		What: "a connection pooler answers at the address of Postgres, and walpost needs the server itself",
		Hint: "name the server's direct address in WALPOST_POSTGRES_URL " +
			"(with PgBouncer usually port 5432 of its host= setting)",
		Err: err,
	}
}
