package migrations

import (
	"context"
	"errors"
	"fmt"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
)

// insufficientPrivilege is the SQLSTATE of a missing right.
const insufficientPrivilege = "42501"

// Check says what is there and what Apply would make, and changes nothing. Problems are findings,
// not errors.
func Check(ctx context.Context, conn *pgx.Conn, o Options) (Report, error) {
	if err := o.validate(); err != nil {
		return Report{}, err
	}
	var report Report
	err := pgx.BeginTxFunc(ctx, conn, pgx.TxOptions{AccessMode: pgx.ReadOnly}, func(tx pgx.Tx) error {
		p, err := inspect(ctx, tx, o)
		if err == nil {
			report = p.Report
		}
		return err
	})
	return report, err
}

// Apply creates what is missing except the slot, all in one transaction, and reports what it found
// and what it made. Two at once wait for each other. The error is a *ProblemError if somebody has
// to mend something first; then nothing was changed, and the report says the same as that of Check.
func Apply(ctx context.Context, conn *pgx.Conn, o Options) (Report, error) {
	if err := o.validate(); err != nil {
		return Report{}, err
	}
	var report Report
	err := pgx.BeginFunc(ctx, conn, func(tx pgx.Tx) error {
		if _, err := tx.Exec(ctx, "SELECT pg_advisory_xact_lock($1)", lockKey); err != nil {
			return fmt.Errorf("wait for another run: %w", err)
		}
		p, err := inspect(ctx, tx, o)
		if err != nil {
			return err
		}
		report = p.Report
		if problems := report.Problems(); len(problems) > 0 {
			return &ProblemError{Problems: problems}
		}
		return p.execute(ctx, tx)
	})
	return report, err
}

func inspect(ctx context.Context, tx pgx.Tx, o Options) (*plan, error) {
	f, err := readFacts(ctx, tx, o)
	if err != nil {
		return nil, err
	}
	return makePlan(f, o)
}

func (p *plan) execute(ctx context.Context, tx pgx.Tx) error {
	for _, statement := range p.statements {
		_, err := tx.Exec(ctx, statement)
		var refused *pgconn.PgError
		if errors.As(err, &refused) && refused.Code == insufficientPrivilege {
			return fmt.Errorf("prepare outbox as role %s: %w; nothing was changed; let a role that may do it run: "+
				"walpost init --print | psql", p.facts.role, err)
		}
		if err != nil {
			return fmt.Errorf("prepare outbox: %w; nothing was changed", err)
		}
	}
	return nil
}
