package cdc

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
)

// CreateSlot creates the slot if there is none of that name, and reports whether it did. Postgres
// first waits for the transactions that are open. If that takes a while, CreateSlot calls waiting
// with the oldest of them. The publication must exist already: a slot that is older than its
// publication reads nothing of it.
func CreateSlot(
	ctx context.Context, conn *pgx.Conn, slot string, failover bool, waiting func(holder string),
) (made bool, err error) {
	var plugin string
	var here bool
	err = conn.QueryRow(ctx, `SELECT coalesce(plugin, ''), coalesce(database = current_database(), false)
		FROM pg_replication_slots WHERE slot_name = $1`, slot).Scan(&plugin, &here)
	switch {
	case err == nil && (plugin != "pgoutput" || !here):
		return false, &StopError{
			What: fmt.Sprintf("slot %q serves something else (plugin %q, this database: %t)", slot, plugin, here),
			Hint: "name another slot in WALPOST_SLOT",
		}
	case err == nil:
		return false, nil
	case !errors.Is(err, pgx.ErrNoRows):
		return false, fmt.Errorf("look for slot %q: %w", slot, err)
	}
	holder := oldestWriter(ctx, conn)
	if holder != "" {
		timer := time.AfterFunc(time.Second, func() { waiting(holder) })
		defer timer.Stop()
	}
	create := "SELECT pg_create_logical_replication_slot($1, 'pgoutput')"
	if failover {
		create = "SELECT pg_create_logical_replication_slot($1, 'pgoutput', false, false, true)"
	}
	_, err = conn.Exec(ctx, create, slot)
	var refused *pgconn.PgError
	switch {
	case err == nil:
		return true, nil
	case errors.As(err, &refused) && refused.Code == "42710": // somebody else created it meanwhile
		return false, nil
	case errors.As(err, &refused) && refused.Code == "42501":
		return false, &StopError{
			What: fmt.Sprintf("role %q may not create a replication slot", conn.Config().User),
			Hint: fmt.Sprintf("as a superuser: ALTER ROLE %s REPLICATION", quoteIdent(conn.Config().User)),
			Err:  refused,
		}
	default:
		return false, fmt.Errorf("create slot %q: %w", slot, err)
	}
}

// oldestWriter names the transaction that has been open the longest among those that have written;
// empty = none. Only members of pg_read_all_stats see when it began.
func oldestWriter(ctx context.Context, conn *pgx.Conn) (holder string) {
	// An error means that there is no row, which is the usual case.
	_ = conn.QueryRow(ctx, `SELECT holder FROM (
		SELECT 'pid ' || pid || coalesce(' of ' || usename, '')
				|| coalesce(', since ' || to_char(xact_start, 'HH24:MI:SS'), '') AS holder, age(backend_xid) AS age
			FROM pg_stat_activity WHERE backend_xid IS NOT NULL AND pid <> pg_backend_pid()
		UNION ALL SELECT 'prepared transaction ' || quote_literal(gid) || ' of ' || owner, age(transaction)
			FROM pg_prepared_xacts
		) h ORDER BY age DESC LIMIT 1`).Scan(&holder)
	return holder
}

// AwaitWriters returns once every transaction that has written by now has ended, in any database. A
// row that was inserted before the publication changed is published as the publication was then,
// whenever its transaction commits. If that takes a while, AwaitWriters calls waiting with the
// oldest of those transactions.
func AwaitWriters(ctx context.Context, conn *pgx.Conn, waiting func(holder string)) error {
	var open bool
	var until string
	// A transaction of our own: a snapshot counts as in progress only what began before the newest
	// transaction that has ended.
	if err := conn.QueryRow(ctx, "SELECT pg_current_xact_id()::text").Scan(&until); err != nil {
		return fmt.Errorf("look for open transactions: %w", err)
	}
	sayAt := time.Now().Add(time.Second)
	for {
		err := conn.QueryRow(ctx, "SELECT pg_snapshot_xmin(pg_current_snapshot()) < $1::text::xid8", until).Scan(&open)
		if err != nil {
			return fmt.Errorf("look for open transactions: %w", err)
		}
		if !open {
			return nil
		}
		if !sayAt.IsZero() && time.Now().After(sayAt) {
			waiting(oldestWriter(ctx, conn))
			sayAt = time.Time{}
		}
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-time.After(100 * time.Millisecond):
		}
	}
}

// CheckFailover tells whether the server has failover slots. The error is a [*StopError].
func CheckFailover(conn *pgx.Conn) error {
	if major := serverMajor(conn.PgConn()); major != 0 && major < 17 {
		return &StopError{
			What: fmt.Sprintf("Postgres %s has no slots that standbys keep a copy of",
				conn.PgConn().ParameterStatus("server_version")),
			Hint: "leave out --failover, or use Postgres 17 or later",
		}
	}
	return nil
}

// EnableFailover makes an existing slot a failover slot, and reports whether it was none before.
// The server takes that command only on a replication connection. It would wait while somebody
// reads the slot, so that is an error.
func EnableFailover(ctx context.Context, conn *pgx.Conn, slot string) (changed bool, err error) {
	var enabled bool
	var reader *int
	err = conn.QueryRow(ctx, "SELECT failover, active_pid FROM pg_replication_slots WHERE slot_name = $1", slot).
		Scan(&enabled, &reader)
	if err != nil {
		return false, fmt.Errorf("inspect slot %q: %w", slot, err)
	}
	if enabled {
		return false, nil
	}
	command := "ALTER_REPLICATION_SLOT " + quoteIdent(slot) + " (FAILOVER)"
	if reader != nil {
		return false, &StopError{
			What: fmt.Sprintf("slot %q has failover = false, and pid %d of Postgres is reading it: it was left so",
				slot, *reader),
			Hint: "stop whoever reads the slot and run this again, " +
				"or on a replication connection (psql 'replication=database ...'): " + command,
		}
	}
	if err := alterSlot(ctx, conn, command); err != nil {
		return false, fmt.Errorf("slot %q has failover = false, and was left so: %s: %w", slot, command, err)
	}
	return true, nil
}

// alterSlot runs one replication command on a connection of its own, with the role and the server
// of conn.
func alterSlot(ctx context.Context, conn *pgx.Conn, command string) error {
	// Bounded: a reader that took the slot meanwhile may stay for ever.
	ctx, cancel := context.WithTimeout(ctx, connectTimeout)
	defer cancel()
	cfg := conn.Config().Config.Copy()
	cfg.RuntimeParams["replication"] = "database"
	pg, err := pgconn.ConnectConfig(ctx, cfg)
	if err != nil {
		return fmt.Errorf("connect to Postgres for replication: %w", err)
	}
	defer func() {
		closing, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Second)
		defer cancel()
		// The slot is altered, or the caller gets an error anyway.
		_ = pg.Close(closing)
	}()
	_, err = pg.Exec(ctx, command).ReadAll()
	return err
}

// AdvanceSlot moves a slot that nobody reads to the end of the WAL. It could not read what lies
// before, where its publication did not exist.
func AdvanceSlot(ctx context.Context, conn *pgx.Conn, slot string) error {
	if _, err := conn.Exec(ctx, "SELECT pg_replication_slot_advance($1, pg_current_wal_lsn())", slot); err != nil {
		return fmt.Errorf("move slot %q behind its publication (stop the relay first, if one runs): %w", slot, err)
	}
	return nil
}

// Blocking names the sessions that hold a lock which the session pid waits for.
func Blocking(ctx context.Context, conn *pgx.Conn, pid uint32) []string {
	rows, err := conn.Query(ctx, `SELECT 'pid ' || pid || ' (' || coalesce(usename, '?') || ', '
			|| coalesce(nullif(application_name, ''), '?') || ')'
		FROM pg_stat_activity WHERE pid = ANY (pg_blocking_pids($1))`, int32(pid))
	if err != nil {
		return nil // the caller asks again
	}
	holders, _ := pgx.CollectRows(rows, pgx.RowTo[string])
	return holders
}
