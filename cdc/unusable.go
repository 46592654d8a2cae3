package cdc

import (
	"errors"
	"fmt"
	"strings"

	"github.com/jackc/pgx/v5/pgconn"
)

// unusable translates refusals of a connection that are faults of its settings: no wait mends them. nil = it is none.
func unusable(err error) error {
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
			What: fmt.Sprintf("the server is older than Postgres %d, and walpost needs %d or later", oldestMajor, oldestMajor),
			Hint: "give the address of a server of a later version",
			Err:  pg,
		}
	case pg.Code == "08P01" && strings.Contains(pg.Message, "startup parameter"): // PgBouncer, in English alone
		return poolerError(pg)
	case pg.Code == "0A000" && strings.Contains(pg.Message, "RDS Proxy"):
		return poolerError(pg)
	case pg.Code == "42704", // unrecognized configuration parameter
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

// tooOld reports whether a server refused what every server has that will do.
func tooOld(err *pgconn.PgError) bool {
	return err.Code == "42704" && strings.Contains(err.Message, "idle_session_timeout")
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
		What: "a connection pooler answers at the address of Postgres, and a pooler passes no replication on",
		Hint: "give the direct address of the server in WALPOST_POSTGRES_URL (with PgBouncer usually port 5432 of its host= setting)",
		Err:  err,
	}
}
