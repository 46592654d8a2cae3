package workload

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
)

// Kinds of transactions and, by how often they are listed, their weights.
const (
	kindSingle    = "single row"
	kindMulti     = "several rows"
	kindSavepoint = "savepoint"
	kindCopy      = "copy"
	kindRollback  = "rollback"
)

var (
	transactionKinds = []string{kindSingle, kindMulti, kindSavepoint, kindCopy, kindRollback}
	kindWeights      = []string{
		kindSingle, kindSingle, kindSingle, kindMulti, kindMulti, kindMulti, kindSavepoint, kindCopy, kindCopy, kindRollback,
	}
)

// writer is one connection.
type writer struct {
	w      *Workload
	random *rand.Rand
}

// run writes until the workload is full or stopped. After an error the connection is given up;
// whether its last transaction was committed is for the outbox table to say.
func (w *writer) run(ctx context.Context) error {
	for ctx.Err() == nil && !w.w.full() {
		conn, err := w.w.connect(ctx)
		if err != nil {
			return err
		}
		err = w.transactions(ctx, conn)
		closeErr := closeConn(context.WithoutCancel(ctx), conn)
		if err != nil && !w.w.opts.Outages {
			return errors.Join(err, closeErr)
		}
	}
	return nil
}

func closeConn(ctx context.Context, conn *pgx.Conn) error {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	return conn.Close(ctx)
}

func (w *writer) transactions(ctx context.Context, conn *pgx.Conn) error {
	for !w.w.full() {
		if err := w.w.pace(ctx); err != nil {
			return err
		}
		kind := kindWeights[w.random.IntN(len(kindWeights))]
		committed, err := w.transaction(ctx, conn, kind)
		if err != nil {
			return fmt.Errorf("write transaction (%s): %w", kind, err)
		}
		w.w.acknowledged(kind, committed)
	}
	return nil
}

// transaction returns the rows that it has committed.
func (w *writer) transaction(ctx context.Context, conn *pgx.Conn, kind string) ([]row, error) {
	tx, err := conn.Begin(ctx)
	if err != nil {
		return nil, err
	}
	aggregates := w.choose(kind)
	rows, err := w.write(ctx, tx, aggregates, w.count(kind), kind == kindCopy)
	if err != nil {
		return nil, err
	}
	switch kind {
	case kindRollback:
		return nil, tx.Rollback(ctx)
	case kindSavepoint:
		more, err := w.savepoint(ctx, tx, aggregates)
		if err != nil {
			return nil, err
		}
		rows = append(rows, more...)
	}
	return rows, tx.Commit(ctx)
}

// savepoint rolls some rows back and writes others in their place, which get the same numbers. It
// stays with the aggregates whose rows are locked already: locking others here could deadlock with
// another writer.
func (w *writer) savepoint(ctx context.Context, tx pgx.Tx, aggregates []aggregate) ([]row, error) {
	nested, err := tx.Begin(ctx)
	if err != nil {
		return nil, err
	}
	if _, err := w.write(ctx, nested, aggregates, w.count(kindSavepoint), w.random.IntN(3) == 0); err != nil {
		return nil, err
	}
	if err := nested.Rollback(ctx); err != nil {
		return nil, err
	}
	return w.write(ctx, tx, aggregates, w.count(kindSavepoint), false)
}

func (w *writer) count(kind string) int {
	switch kind {
	case kindSingle:
		return 1
	case kindCopy:
		return 1 + w.random.IntN(2*w.w.opts.MaxRows)
	default:
		return 1 + w.random.IntN(w.w.opts.MaxRows)
	}
}

// choose picks the aggregates of a transaction, sorted: all writers lock in the same order.
func (w *writer) choose(kind string) []aggregate {
	count := 1
	if kind != kindSingle {
		count = 1 + w.random.IntN(8)
	}
	chosen := map[aggregate]bool{}
	for range count {
		kind := w.w.opts.Types[w.random.IntN(len(w.w.opts.Types))]
		chosen[aggregate{kind, w.random.IntN(w.w.opts.Aggregates)}] = true
	}
	list := make([]aggregate, 0, len(chosen))
	for a := range chosen {
		list = append(list, a)
	}
	slices.SortFunc(list, func(a, b aggregate) int { return cmp.Compare(a.name(), b.name()) })
	return list
}

// write allocates numbers for all rows, then inserts the rows with the aggregates mixed, each
// aggregate in its order.
func (w *writer) write(ctx context.Context, tx pgx.Tx, aggregates []aggregate, count int, useCopy bool) ([]row, error) {
	counts := make([]int, len(aggregates))
	for range count {
		counts[w.random.IntN(len(counts))]++
	}
	next := make([]int64, len(aggregates))
	for i, a := range aggregates {
		const allocate = "UPDATE aggregate_seq SET n = n + $2 WHERE id = $1 RETURNING n"
		err := tx.QueryRow(ctx, allocate, a.name(), counts[i]).Scan(&next[i])
		if err != nil {
			return nil, fmt.Errorf("allocate numbers: %w", err)
		}
		next[i] -= int64(counts[i])
	}
	rows := make([]row, 0, count)
	for len(rows) < count {
		i := w.random.IntN(len(aggregates))
		if counts[i] == 0 {
			continue
		}
		counts[i]--
		next[i]++
		rows = append(rows, w.event(aggregates[i], next[i]))
	}
	w.w.sent(rows)
	if useCopy {
		return rows, w.copyRows(ctx, tx, rows)
	}
	return rows, w.insertRows(ctx, tx, rows)
}

func (w *writer) insertRows(ctx context.Context, tx pgx.Tx, rows []row) error {
	var batch pgx.Batch
	for _, r := range rows {
		batch.Queue("INSERT INTO "+w.w.to.Table+` (id, aggregatetype, aggregateid, type, payload, headers)
			VALUES ($1, $2, $3, $4, $5, $6)`, r.values()...)
	}
	return tx.SendBatch(ctx, &batch).Close()
}

func (w *writer) copyRows(ctx context.Context, tx pgx.Tx, rows []row) error {
	_, err := tx.CopyFrom(ctx, strings.Split(w.w.to.Table, "."),
		[]string{"id", "aggregatetype", "aggregateid", "type", "payload", "headers"},
		pgx.CopyFromSlice(len(rows), func(i int) ([]any, error) { return rows[i].values(), nil }))
	return err
}
