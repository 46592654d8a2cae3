package workload

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/walpost/walpost/integration/checker"
	"github.com/walpost/walpost/integration/servers"
	"github.com/walpost/walpost/integration/wait"
)

// Options say what a workload writes. The zero value writes from four connections, as fast as it
// can, until it is stopped.
type Options struct {
	Events     int     // stop after so many committed events; 0: until Stop
	Rate       float64 // committed events per second, of all writers together; 0: no limit
	Writers    int     // connections; 0 is 4
	Types      []string
	Aggregates int    // of each type; 0 is 100
	MaxRows    int    // of one transaction; 0 is 40
	NoLarge    bool   // no payloads of 200 KB
	Seed       uint64 // 0: a random one, which is logged
	// Outages says that Postgres may go away: writers then wait, connect again and go on. Otherwise
	// the first error ends the workload and fails the test.
	Outages bool
	// Failover says that a standby may be promoted, with outages and all: what was acknowledged
	// last may be lost with the primary.
	Failover bool
}

func (o Options) withDefaults() Options {
	if o.Writers == 0 {
		o.Writers = 4
	}
	if len(o.Types) == 0 {
		o.Types = []string{"order", "customer", "invoice"}
	}
	if o.Aggregates == 0 {
		o.Aggregates = 100
	}
	if o.MaxRows == 0 {
		o.MaxRows = 40
	}
	if o.Seed == 0 {
		o.Seed = rand.Uint64()
	}
	o.Outages = o.Outages || o.Failover
	return o
}

// Outbox is the table into which a workload writes.
type Outbox struct {
	*servers.DB
	Table  string // schema and name
	Prefix string // of the topics of its events
}

// Workload inserts events in transactions of all kinds. It numbers the events of an aggregate under
// a row lock that is held until the end of the transaction, so that commit order is the order of
// the numbers.
type Workload struct {
	to        Outbox
	opts      Options
	writers   string // their application_name
	cancel    context.CancelFunc
	group     sync.WaitGroup
	started   time.Time
	committed atomic.Int64 // events whose COMMIT was acknowledged
	stopped   atomic.Bool  // by Stop

	mu    sync.Mutex
	ids   map[string]bool // every id that was ever sent -> its COMMIT was acknowledged
	errs  []error
	kinds map[string]int // transactions of each kind, to see that the mix is one
}

// Start writes in the background until Wait, Stop or the end of the test. The outbox table must be
// there.
func Start(t testing.TB, to Outbox, opts Options) *Workload {
	t.Helper()
	opts = opts.withDefaults()
	t.Logf("workload with seed %d", opts.Seed)
	ctx, cancel := context.WithCancel(context.WithoutCancel(t.Context()))
	w := &Workload{
		to: to, opts: opts, writers: fmt.Sprint("workload ", opts.Seed), cancel: cancel, started: time.Now(),
		ids: map[string]bool{}, kinds: map[string]int{},
	}
	w.prepare(t)
	for i := range opts.Writers {
		writer := &writer{w: w, random: rand.New(rand.NewPCG(opts.Seed, uint64(i)))}
		w.group.Go(func() { w.record(writer.run(ctx)) })
	}
	t.Cleanup(func() {
		cancel()
		w.group.Wait()
	})
	return w
}

// prepare creates the counters. One row each exists beforehand, so that allocating a number is a
// plain UPDATE.
func (w *Workload) prepare(t testing.TB) {
	t.Helper()
	var names []string
	for _, kind := range w.opts.Types {
		for i := range w.opts.Aggregates {
			names = append(names, aggregate{kind, i}.name())
		}
	}
	w.to.Exec(t, "CREATE TABLE IF NOT EXISTS aggregate_seq (id text PRIMARY KEY, n bigint NOT NULL)")
	w.to.Exec(t, "INSERT INTO aggregate_seq SELECT unnest($1::text[]), 0 ON CONFLICT DO NOTHING", names)
}

func (w *Workload) record(err error) {
	// A writer that Stop interrupts may say so in many ways.
	if err == nil || errors.Is(err, context.Canceled) || w.stopped.Load() {
		return
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.errs = append(w.errs, err)
}

// Wait returns when the wanted number of events was committed.
func (w *Workload) Wait(t testing.TB) {
	t.Helper()
	w.group.Wait()
	w.cancel()
	if err := errors.Join(w.errs...); err != nil {
		t.Fatalf("workload: %v", err)
	}
}

// Stop lets no more transactions begin, and returns when the writers have ended. Where Postgres
// does not go away, their backends have ended too: nothing is committed after it.
func (w *Workload) Stop(t testing.TB) {
	t.Helper()
	w.stopped.Store(true)
	w.cancel()
	w.Wait(t)
	if !w.opts.Outages {
		w.awaitBackends(t)
	}
}

// awaitBackends returns once no backend of a writer is left. A COMMIT whose client has gone may
// still be under way: it ends well, and its rows appear after the table was read, or after the
// relay was told to stop.
func (w *Workload) awaitBackends(t testing.TB) {
	t.Helper()
	wait.For(t, 30*time.Second, "the backends of the writers to end", func() bool {
		return w.to.Value(t, `SELECT count(*)::text FROM pg_stat_activity
			WHERE datname = current_database() AND application_name = $1 AND pid <> pg_backend_pid()`, w.writers) == "0"
	})
}

// Committed is the number of events whose COMMIT was acknowledged so far.
func (w *Workload) Committed() int { return int(w.committed.Load()) }

// WaitCommitted returns when so many events were committed.
func (w *Workload) WaitCommitted(t testing.TB, events int) {
	t.Helper()
	wait.For(t, 2*time.Minute, fmt.Sprintf("%d committed events", events),
		func() bool { return w.Committed() >= events })
}

// Truth reads from the outbox table what was committed. The workload must have ended. What was sent
// and is not in the table was rolled back, be it on purpose or by a crash.
func (w *Workload) Truth(t testing.TB) *checker.Truth {
	t.Helper()
	return w.TruthIn(t, w.to.Table)
}

// TruthIn is Truth for a test that has moved rows: table is a view of wherever they are.
func (w *Workload) TruthIn(t testing.TB, table string) *checker.Truth {
	t.Helper()
	w.awaitBackends(t)
	w.mu.Lock()
	defer w.mu.Unlock()
	rolledBack := map[string]bool{}
	truth, err := checker.ReadTruth(t.Context(), w.to.Connect(t), table, w.to.Prefix, rolledBack)
	if err != nil {
		t.Fatal(err)
	}
	for id, acknowledged := range w.ids {
		if truth.Events[id] != nil {
			continue
		}
		rolledBack[id] = true
		if acknowledged && !w.opts.Failover {
			t.Fatalf("postgres lost event %s after it had acknowledged the COMMIT", id)
		}
	}
	return truth
}

// Types are the aggregate types that it writes.
func (w *Workload) Types() []string { return w.opts.Types }

// Mix says how many transactions of each kind were tried.
func (w *Workload) Mix() string {
	w.mu.Lock()
	defer w.mu.Unlock()
	var parts []string
	for _, kind := range transactionKinds {
		parts = append(parts, fmt.Sprintf("%s %d", kind, w.kinds[kind]))
	}
	return strings.Join(parts, ", ")
}

// Transaction commits one more transaction of so many rows, in one COPY.
func (w *Workload) Transaction(t testing.TB, rows int) {
	t.Helper()
	conn := w.to.Connect(t)
	one := &writer{w: w, random: rand.New(rand.NewPCG(w.opts.Seed, rand.Uint64()))}
	tx, err := conn.Begin(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	written, err := one.write(t.Context(), tx, one.choose(kindCopy), rows, true)
	if err != nil {
		t.Fatal(err)
	}
	if err := tx.Commit(t.Context()); err != nil {
		t.Fatal(err)
	}
	w.acknowledged(kindCopy, written)
}

// full reports whether enough was committed.
func (w *Workload) full() bool { return w.opts.Events > 0 && w.Committed() >= w.opts.Events }

// sent remembers ids before they can possibly be committed.
func (w *Workload) sent(rows []row) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, r := range rows {
		w.ids[r.id.String()] = false
	}
}

func (w *Workload) acknowledged(kind string, rows []row) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.kinds[kind]++
	for _, r := range rows {
		w.ids[r.id.String()] = true
	}
	w.committed.Add(int64(len(rows)))
}

// pace waits until the rate allows the next transaction.
func (w *Workload) pace(ctx context.Context) error {
	if w.opts.Rate == 0 {
		return ctx.Err()
	}
	due := w.started.Add(time.Duration(float64(w.Committed()) / w.opts.Rate * float64(time.Second)))
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-time.After(time.Until(due)):
		return nil
	}
}

// connect waits for Postgres if it may be away.
func (w *Workload) connect(ctx context.Context) (*pgx.Conn, error) {
	settings, err := pgx.ParseConfig(w.to.URL())
	if err != nil {
		return nil, fmt.Errorf("connect writer: %w", err)
	}
	settings.RuntimeParams["application_name"] = w.writers
	for {
		conn, err := pgx.ConnectConfig(ctx, settings)
		if err == nil {
			return conn, nil
		}
		if !w.opts.Outages {
			return nil, fmt.Errorf("connect writer: %w", err)
		}
		select {
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-time.After(50 * time.Millisecond):
		}
	}
}
