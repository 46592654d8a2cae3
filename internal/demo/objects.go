package demo

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
)

// mark is the comment of the schema. It tells a later run that a killed demo left the schema.
const mark = "made by walpost demo, which removes it"

// lockKey keeps two demos in one database apart.
const lockKey = 0x77616c706f737464

// reserve makes sure that the demo's names are free, removes what a killed demo left, and creates
// the schema and the business table. The names stay reserved as long as the connection lives.
func reserve(ctx context.Context, conn *pgx.Conn) error {
	if err := lock(ctx, conn); err != nil {
		return err
	}
	var taken bool
	var comment *string
	err := conn.QueryRow(ctx, `SELECT
		EXISTS (SELECT FROM pg_replication_slots WHERE slot_name = $1)
			OR EXISTS (SELECT FROM pg_publication WHERE pubname = $1),
		(SELECT coalesce(obj_description(oid, 'pg_namespace'), '') FROM pg_namespace WHERE nspname = $1)`, Name).
		Scan(&taken, &comment)
	switch {
	case err != nil:
		return fmt.Errorf("check for what other demos left: %w", err)
	case comment != nil && *comment != mark:
		return fmt.Errorf("the demo needs the name %s, and a schema has it that the demo did not create", Name)
	case comment == nil && taken:
		return fmt.Errorf("the demo needs the name %s, and a slot or publication has it that the demo did "+
			"not create here "+
			"(is another demo running in another database of this server?)", Name)
	case comment != nil:
		if err := drop(ctx, conn); err != nil {
			return err
		}
	}
	return pgx.BeginFunc(ctx, conn, func(tx pgx.Tx) error {
		_, err := tx.Exec(ctx, "CREATE SCHEMA "+Name+"; COMMENT ON SCHEMA "+Name+" IS '"+mark+`';
			CREATE TABLE `+Name+`.orders (
				id text PRIMARY KEY, customer text NOT NULL, state text NOT NULL, total_cents bigint NOT NULL)`)
		if err != nil {
			return fmt.Errorf("create schema %s: %w", Name, err)
		}
		return nil
	})
}

// lock makes sure that no other demo runs in the database. The server needs a moment to see that
// one was killed.
func lock(ctx context.Context, conn *pgx.Conn) error {
	for deadline := time.Now().Add(2 * time.Second); ; {
		var alone bool
		if err := conn.QueryRow(ctx, "SELECT pg_try_advisory_lock($1)", int64(lockKey)).Scan(&alone); err != nil {
			return fmt.Errorf("check for other demos: %w", err)
		}
		if alone {
			return nil
		}
		if time.Now().After(deadline) {
			return errors.New("another walpost demo is running in this database")
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(100 * time.Millisecond):
		}
	}
}

// drop removes slot, publication and schema; the schema last, because it carries the mark.
func drop(ctx context.Context, conn *pgx.Conn) error {
	for {
		_, err := conn.Exec(ctx, `SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots
			WHERE slot_name = $1 AND database = current_database()`, Name)
		var refused *pgconn.PgError
		if err == nil {
			break
		}
		if !errors.As(err, &refused) || refused.Code != "55006" {
			return fmt.Errorf("drop slot %s: %w", Name, err)
		}
		// The walsender of a relay that has just gone holds it for a moment.
		select {
		case <-ctx.Done():
			return fmt.Errorf("drop slot %s: %w", Name, err)
		case <-time.After(50 * time.Millisecond):
		}
	}
	_, err := conn.Exec(ctx, "SET client_min_messages = warning; DROP PUBLICATION IF EXISTS "+Name+"; "+
		"DROP SCHEMA IF EXISTS "+Name+" CASCADE")
	if err != nil {
		return fmt.Errorf("drop publication and schema %s: %w", Name, err)
	}
	return nil
}

// sourceOf is the header by which records of this run are known.
func sourceOf(ctx context.Context, conn *pgx.Conn) (string, error) {
	var system string
	if err := conn.QueryRow(ctx, "SELECT system_identifier::text FROM pg_control_system()").Scan(&system); err != nil {
		return "", fmt.Errorf("ask for the system identifier: %w", err)
	}
	return system + "/" + Name, nil
}
