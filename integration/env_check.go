package integration

import (
	"errors"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/walpost/walpost/integration/checker"
	"github.com/walpost/walpost/integration/workload"
)

// Check consumes all topics of the test and compares them with what the workload has committed. The
// workload must have ended. While events are missing it goes on as long as records keep coming, so
// the relay may still be at work; for what may come after the last event, stop the relay first.
func (e *Env) Check(t testing.TB, w *workload.Workload) checker.Report {
	t.Helper()
	return e.CheckTruth(t, w.TruthIn(t, e.Table))
}

// CheckTruth is Check for events that another than the workload has inserted.
func (e *Env) CheckTruth(t testing.TB, truth *checker.Truth) checker.Report {
	t.Helper()
	c := checker.New(truth)
	e.consume(t, c.Add, func() bool { return c.Missing() == 0 })
	return c.Report()
}

// consume hands all records of the test to add. It returns once there are no more and all is there,
// or none came for a while.
func (e *Env) consume(t testing.TB, add func(r *kgo.Record, partitions int32), complete func() bool) {
	t.Helper()
	consumer, err := checker.NewConsumer(e.Brokers, e.Prefix, e.Login...)
	if err != nil {
		t.Fatal(err)
	}
	defer consumer.Close()
	consumer.Follow(t, add, complete)
}

// ReadTruth reads what the outbox table holds, for CheckTruth.
func (e *Env) ReadTruth(t testing.TB) *checker.Truth {
	t.Helper()
	truth, err := checker.ReadTruth(t.Context(), e.Connect(t), e.Table, e.Prefix, map[string]bool{})
	if err != nil {
		t.Fatal(err)
	}
	return truth
}

// CreateOutbox makes the table, the publication and the slot by hand, for tests of what does not
// begin with "walpost init".
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
