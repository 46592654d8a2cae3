package cdc

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
)

// CreateSlot creates the slot if there is none of that name, and reports whether it did. Postgres first waits for the
// transactions that are open; waiting is told if that takes a while. The publication must exist already: a slot that is
// older than its publication reads nothing of it.
func CreateSlot(ctx context.Context, conn *pgx.Conn, slot string, failover bool, waiting func(holder string)) (made bool, err error) {
	var plugin string
	var here bool
	err = conn.QueryRow(ctx, "SELECT coalesce(plugin, ''), coalesce(database = current_database(), false) FROM pg_replication_slots WHERE slot_name = $1", slot).
		Scan(&plugin, &here)
	switch {
	case err == nil && (plugin != "pgoutput" || !here):
		return false, &StopError{
			What: fmt.Sprintf("slot %q is in use for something else (plugin %q, this database: %t)", slot, plugin, here),
			Hint: "name another slot in WALPOST_SLOT",
		}
	case err == nil:
		return false, nil
	case !errors.Is(err, pgx.ErrNoRows):
		return false, fmt.Errorf("look for slot %q: %w", slot, err)
	}
	var holder string
	// Nobody holding is the usual case, and then there is no row.
	_ = conn.QueryRow(ctx, "SELECT 'pid ' || pid || coalesce(' of ' || usename, '') || ', since ' || to_char(xact_start, 'HH24:MI:SS') FROM pg_stat_activity "+
		"WHERE backend_xid IS NOT NULL AND pid <> pg_backend_pid() ORDER BY age(backend_xid) DESC LIMIT 1").Scan(&holder)
	if holder != "" {
		timer := time.AfterFunc(time.Second, func() { waiting(holder) })
		defer timer.Stop()
	}
	create, args := "SELECT pg_create_logical_replication_slot($1, 'pgoutput')", []any{slot}
	if failover {
		create = "SELECT pg_create_logical_replication_slot($1, 'pgoutput', false, false, true)"
	}
	_, err = conn.Exec(ctx, create, args...)
	var refused *pgconn.PgError
	switch {
	case err == nil:
		return true, nil
	case errors.As(err, &refused) && refused.Code == "42710": // somebody else was faster
		return false, nil
	case errors.As(err, &refused) && refused.Code == "42501":
		return false, &StopError{
			What: fmt.Sprintf("role %q may not create a replication slot", conn.Config().User),
			Hint: fmt.Sprintf("as a superuser: ALTER ROLE %s REPLICATION", quoteIdent(conn.Config().User)),
			Err:  refused,
		}
	case errors.As(err, &refused) && refused.Code == "42883" && failover:
		return false, &StopError{What: "this server knows no failover slots", Hint: "leave out --failover, or use Postgres 17 or later", Err: refused}
	default:
		return false, fmt.Errorf("create slot %q: %w", slot, err)
	}
}
