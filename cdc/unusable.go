package cdc

import (
	"errors"
	"fmt"
	"strings"
	"unicode"

	"github.com/jackc/pgx/v5/pgconn"
)

// unusable translates refusals of a connection that are faults of its settings: no wait mends them. nil = it is none.
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
	case tooOld(pg):
		return &SettingsError{
			What: fmt.Sprintf("the server is older than Postgres %d, or not Postgres, and walpost needs %d or later", oldestMajor, oldestMajor),
			Hint: "give the address of a server of a later version",
			Err:  pg,
		}
	case pg.Code == "08P01" && fromPgBouncer(pg.Message):
		return poolerError(pg)
	case pg.Code == "0A000" && strings.Contains(pg.Message, "RDS Proxy"):
		return poolerError(pg)
	case pg.Code == "42704", // unrecognized configuration parameter
		pg.Code == "42601",                     // options= that are none
		pg.Code == "22023", pg.Code == "22P02", // its value
		pg.Code == "55P02", // set at the start of the server alone
		pg.Code == "42501" && strings.HasPrefix(pg.Routine, "set_config_"): // set by superusers alone
		return &SettingsError{
			What: "Postgres refuses a parameter of the connection",
			Hint: "correct it or leave it out: in WALPOST_POSTGRES_URL, in options= there, or in PGOPTIONS",
			Err:  pg,
		}
	}
	return nil
}

// oldestMajor is the oldest version of Postgres whose streams can be read.
const oldestMajor = 14

// tooOld reports whether a server refused a setting of ours that every server has which will do. The
// message may be in any language, but has the name.
func tooOld(err *pgconn.PgError) bool {
	if err.Code != "42704" {
		return false
	}
	for _, word := range strings.FieldsFunc(err.Message, func(r rune) bool { return r != '_' && r != '.' && !unicode.IsLetter(r) && !unicode.IsDigit(r) }) {
		if _, ours := sessionSettings[word]; ours {
			return true
		}
	}
	return false
}

// fromPgBouncer knows messages that are in English alone: refusals of what every session of ours sends,
// or, where PgBouncer ignores that, of what it has no settings for.
func fromPgBouncer(message string) bool {
	return strings.Contains(message, "startup parameter") || strings.Contains(strings.ToLower(message), "bouncer")
}

// readBack asks for a setting that was sent at the start of the session, and that is not the default.
const readBack = "SELECT pg_catalog.current_setting('client_min_messages')"

// checkSettingsArrived refuses a server that has not got the settings of a session. A pooler may be told to ignore
// what it does not know (ignore_startup_parameters of PgBouncer), or does so by itself. The server would then
// keep warnings of skipped rows to itself, for one. Setting them afterwards would not do: the next
// statement may be for another of the pooler's connections.
func checkSettingsArrived(result *pgconn.Result) error {
	if len(result.Rows) != 1 || len(result.Rows[0]) != 1 {
		return nil
	}
	const name = "client_min_messages"
	if got := string(result.Rows[0][0]); got != sessionSettings[name] {
		return poolerError(fmt.Errorf("%s is %q, and not %q as it was sent", name, got, sessionSettings[name]))
	}
	return nil
}

// checkVersion refuses a server whose version is too old; one that cannot be read will do.
func checkVersion(pg *pgconn.PgConn) error {
	if major := serverMajor(pg); major != 0 && major < oldestMajor {
		return &SettingsError{
			What: fmt.Sprintf("the server is Postgres %s, and walpost needs %d or later", pg.ParameterStatus("server_version"), oldestMajor),
			Hint: "give the address of a server of a later version",
		}
	}
	return nil
}

// SettingsError says that the settings of the connection cannot be used: waiting does not help, and nothing is lost.
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

// poolerError says that no Postgres answers at an address, but something that shares out its connections.
func poolerError(err error) error {
	return &SettingsError{
		What: "a connection pooler answers at the address of Postgres, and walpost needs the server itself",
		Hint: "give the direct address of the server in WALPOST_POSTGRES_URL (with PgBouncer usually port 5432 of its host= setting)",
		Err:  err,
	}
}
