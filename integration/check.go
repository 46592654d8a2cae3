package integration

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/twmb/franz-go/pkg/kgo"
)

// patience is how long Check waits for another record while events are missing.
const patience = 20 * time.Second

// Check consumes all topics of the test and compares them with what the workload has committed. The workload must have
// ended. While events are missing it goes on as long as records keep coming, so the relay may still be at work; for what
// may come after the last event, stop the relay first.
func (e *Env) Check(t testing.TB, w *Workload) Report {
	t.Helper()
	return e.CheckTruth(t, w.Truth(t))
}

// CheckTruth is Check for events that another than the workload has inserted.
func (e *Env) CheckTruth(t testing.TB, truth *Truth) Report {
	t.Helper()
	checker := NewChecker(truth)
	e.consume(t, checker.Add, func() bool { return checker.Missing() == 0 })
	return checker.Report()
}

// consume hands all records of the test to add. It returns once there are no more and all is there, or none came for a while.
func (e *Env) consume(t testing.TB, add func(r *kgo.Record, partitions int32), complete func() bool) {
	t.Helper()
	consumer, err := newConsumer(e.Brokers, e.Prefix, e.Login...)
	if err != nil {
		t.Fatal(err)
	}
	defer consumer.close()
	for last := time.Now(); ; {
		ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
		count, err := consumer.drain(ctx, add)
		cancel()
		if err != nil && time.Since(last) > patience {
			t.Fatal(err)
		}
		if count > 0 {
			last = time.Now()
			continue // until nothing is left
		}
		if err == nil && (complete() || time.Since(last) > patience) {
			return
		}
		time.Sleep(50 * time.Millisecond) // polls the brokers, which tell nobody of new records
	}
}

// ReadTruth reads what the outbox table holds, for CheckTruth.
func (e *Env) ReadTruth(t testing.TB) *Truth {
	t.Helper()
	truth, err := readTruth(t.Context(), e.Connect(t), e.Table, e.Prefix, map[string]bool{})
	if err != nil {
		t.Fatal(err)
	}
	return truth
}

// Eventually polls a condition and fails the test if it does not come true in time. It is for what nothing announces.
func Eventually(t testing.TB, timeout time.Duration, what string, condition func() bool) {
	t.Helper()
	deadline := time.Now().Add(timeout)
	for !condition() {
		if time.Now().After(deadline) {
			t.Fatalf("waited %s in vain for %s", timeout, what)
		}
		time.Sleep(20 * time.Millisecond)
	}
}

// CreateOutbox makes the table, the publication and the slot by hand, for tests of what does not begin with "walpost
// init".
func (e *Env) CreateOutbox(t testing.TB) {
	t.Helper()
	conn, err := pgx.Connect(t.Context(), e.URL())
	if err != nil {
		t.Fatal(err)
	}
	for _, statement := range []string{
		`CREATE TABLE ` + e.Table + ` (id uuid PRIMARY KEY, aggregatetype text NOT NULL, aggregateid text NOT NULL, type text,
			payload jsonb, headers jsonb, created_at timestamptz NOT NULL DEFAULT clock_timestamp())`,
		`CREATE PUBLICATION ` + e.Publication + ` FOR TABLE ` + e.Table + ` WITH (publish = 'insert', publish_via_partition_root = true)`,
		`SELECT pg_create_logical_replication_slot('` + e.Slot + `', 'pgoutput')`,
	} {
		if _, execErr := conn.Exec(t.Context(), statement); execErr != nil {
			err = errors.Join(err, execErr)
		}
	}
	if err := errors.Join(err, conn.Close(t.Context())); err != nil {
		t.Fatal(err)
	}
}
