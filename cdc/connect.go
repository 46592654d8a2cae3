package cdc

import (
	"bufio"
	"context"
	"io"
	"strconv"
	"strings"
	"time"

	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgproto3"
)

// sessionSettings are the settings that our sessions depend on. A role, a database or the URL may
// have others, so we send these at the start of a session, where they win. Postgres 14 to 18 know
// each of them.
var sessionSettings = map[string]string{
	// What keys, topics and headers look like must not depend on who connects. JSON is UTF-8, and
	// so are the names of tables.
	"client_encoding":    "UTF8",
	"datestyle":          "ISO, MDY",
	"intervalstyle":      "postgres",
	"timezone":           "UTC",
	"extra_float_digits": "1",
	"bytea_output":       "hex",
	"lc_monetary":        "C",
	// Newer servers report rows that they skip only in a warning.
	"client_min_messages": "warning",
	// What our own queries and statements mean.
	"quote_all_identifiers":       "off",
	"standard_conforming_strings": "on",
	"row_security":                "on",
	"jit":                         "off",
	// An inspection is several statements, and each needs a snapshot of its own: the WAL end comes
	// first.
	"default_transaction_isolation":  "read committed",
	"default_transaction_read_only":  "off",
	"default_transaction_deferrable": "off",
	// Our queries have deadlines of their own, and a walsender decodes for as long as it takes.
	"statement_timeout":                   "0",
	"lock_timeout":                        "0",
	"idle_in_transaction_session_timeout": "0",
	"idle_session_timeout":                "0",
}

// lockTimeout is how long an inspection waits for a lock. It can only be one on a catalog.
const lockTimeout = 4 * time.Second

// readBuffer is how many bytes one read of the socket may return.
const readBuffer = 256 << 10

// Prepare adds to cfg the settings that our sessions depend on.
func (c Config) Prepare(cfg *pgconn.Config) {
	if cfg.ConnectTimeout == 0 {
		cfg.ConnectTimeout = connectTimeout
	}
	given := cfg.RuntimeParams
	cfg.RuntimeParams = map[string]string{}
	for name, value := range given {
		if _, ours := sessionSettings[strings.ToLower(name)]; !ours {
			cfg.RuntimeParams[name] = value
		}
	}
	for name, value := range sessionSettings {
		cfg.RuntimeParams[name] = value
	}
	if cfg.RuntimeParams["application_name"] == "" {
		cfg.RuntimeParams["application_name"] = "walpost " + c.Slot
	}
	after := cfg.AfterConnect
	cfg.AfterConnect = func(ctx context.Context, pg *pgconn.PgConn) error {
		if after != nil {
			if err := after(ctx, pg); err != nil {
				return err
			}
		}
		return finishSetup(ctx, pg)
	}
}

// finishSetup checks the server, and sets what cannot be sent at the start of a session.
func finishSetup(ctx context.Context, pg *pgconn.PgConn) error {
	if err := checkVersion(pg); err != nil {
		return err
	}
	// Not at the start of the session: a login trigger may rely on the search_path of the user.
	set := []string{"SET search_path = pg_catalog, pg_temp"}
	if pg.ParameterStatus("server_encoding") == "SQL_ASCII" {
		// Bytes of any encoding arrive as they are.
		set = append(set, "SET client_encoding = 'SQL_ASCII'")
	}
	if serverMajor(pg) >= 17 {
		// A walsender decodes inside a transaction, for as long as Kafka holds it up.
		set = append(set, "SET transaction_timeout = 0")
	}
	results, err := pg.Exec(ctx, strings.Join(append(set, readBack), "; ")).ReadAll()
	if err != nil {
		return err
	}
	if len(results) == 0 {
		return nil
	}
	return checkSettingsArrived(results[len(results)-1])
}

// serverMajor is the major version of the server; 0 = not known.
func serverMajor(pg *pgconn.PgConn) int {
	return majorOf(pg.ParameterStatus("server_version"))
}

func majorOf(version string) int {
	digits := strings.IndexFunc(version+" ", func(r rune) bool { return r < '0' || r > '9' })
	major, err := strconv.Atoi(version[:digits])
	if err != nil {
		return 0
	}
	return major
}

// currentSettings returns the settings of the connection as they are now.
func (c Config) currentSettings() (*pgconn.Config, error) {
	if c.Settings == nil {
		return c.Postgres.Copy(), nil
	}
	cfg, err := c.Settings()
	if err != nil {
		// Transient: a file may be half-written.
		return nil, &brokenError{"read the settings of the connection to Postgres", err}
	}
	return cfg, nil
}

// connect opens an ordinary connection.
func (c Config) connect(ctx context.Context) (*pgconn.PgConn, error) {
	cfg, err := c.currentSettings()
	if err != nil {
		return nil, err
	}
	c.Prepare(cfg)
	cfg.RuntimeParams["role"] = "none" // the role that logs in may see its own walsender
	cfg.RuntimeParams["lock_timeout"] = strconv.Itoa(int(lockTimeout.Milliseconds()))
	pg, err := c.Hosts.connect(ctx, cfg, c.Log, nil)
	if err != nil {
		return nil, c.connectError(err)
	}
	return pg, nil
}

// pacedReaderKey is where the custom data of a replication connection has its reader.
const pacedReaderKey = "walpost reader"

// connectReplication opens a replication connection. Its frontend reads through the pacedReader.
func (c Config) connectReplication(
	ctx context.Context, notice func(*pgconn.Notice),
) (*pgconn.PgConn, *pacedReader, error) {
	cfg, err := c.currentSettings()
	if err != nil {
		return nil, nil, err
	}
	c.Prepare(cfg)
	cfg.RuntimeParams["role"] = "none" // the role that logs in has REPLICATION
	cfg.RuntimeParams["replication"] = "database"
	cfg.OnNotice = func(_ *pgconn.PgConn, n *pgconn.Notice) { notice(n) }
	// Each attempt has a reader of its own.
	pg, err := c.Hosts.connect(ctx, cfg, c.Log, func(one *pgconn.Config) {
		r := &pacedReader{}
		one.BuildFrontend = func(conn io.Reader, w io.Writer) *pgproto3.Frontend {
			r.conn = conn
			return pgproto3.NewFrontend(bufio.NewReaderSize(r, readBuffer), w)
		}
		after := one.AfterConnect
		one.AfterConnect = func(ctx context.Context, pg *pgconn.PgConn) error {
			pg.CustomData()[pacedReaderKey] = r
			return after(ctx, pg)
		}
	})
	if err != nil {
		return nil, nil, err
	}
	return pg, pg.CustomData()[pacedReaderKey].(*pacedReader), nil
}
