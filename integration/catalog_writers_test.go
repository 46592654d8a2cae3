package integration

import (
	"fmt"
	"strings"
	"testing"
	"time"
)

const insertTen = `INSERT INTO %s (id, aggregatetype, aggregateid, type, payload)
	SELECT gen_random_uuid(), '%s', 'k', 'Happened', jsonb_build_object('i', i) FROM generate_series(1, 10) i`

// held starts a transaction that inserts ten events and leaves it open.
func held(t testing.TB, env *Env, table, kind string) (commit func()) {
	t.Helper()
	tx, err := env.Connect(t).Begin(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := tx.Exec(t.Context(), fmt.Sprintf(insertTen, table, kind)); err != nil {
		t.Fatal(err)
	}
	return func() {
		if err := tx.Commit(t.Context()); err != nil {
			t.Error(err)
		}
	}
}

// waits runs init, which has to wait for a transaction and to say so, and commits that.
func waits(t testing.TB, env *Env, commit func(), args ...string) {
	t.Helper()
	initialize := env.start(t, nil, append([]string{"init"}, args...)...)
	initialize.WaitLog(t, 20*time.Second, "waiting for transactions that are open now; the oldest: pid ")
	if !initialize.Running() {
		t.Error("init has not waited")
	}
	commit()
	if code := initialize.Wait(t, 20*time.Second); code != 0 {
		t.Fatalf("init ended with %d:\n%s", code, initialize.Log())
	}
}

// TestInitWaitsForWriters adds a table, and accepts a publication, while a transaction is open
// whose rows are not in the stream: pgoutput judges a row by the publication at its insertion. What
// commits after init has returned is in the stream.
func TestInitWaitsForWriters(t *testing.T) {
	t.Parallel()
	onBoth(t, func(t *testing.T, major int) {
		env := Setup(t, Needs{Postgres: major})
		running(t, env).Stop(t)
		env.Exec(t, "CREATE TABLE second (LIKE outbox INCLUDING ALL)")
		env.Table = "public.outbox,public.second"
		waits(t, env, held(t, env, "second", "before"))
		relay := env.Run(t)
		relay.Ready(t, 30*time.Second)
		held(t, env, "second", "after")()
		awaitRecords(t, env, env.Prefix+"after", 10)
		relay.Stop(t)

		env.Exec(t, "ALTER PUBLICATION walpost DROP TABLE outbox")
		commit := held(t, env, "outbox", "unseen")
		env.Exec(t, "ALTER PUBLICATION walpost ADD TABLE outbox")
		halts(t, env.Run(t), "was altered since")
		waits(t, env, commit, "--accept-gap")
		if n := env.Value(t, "SELECT count(*) FROM outbox WHERE aggregatetype = 'unseen'"); n != "10" {
			t.Errorf("%s rows can be compared after init --accept-gap, want all 10", n)
		}
		relay = env.Run(t)
		relay.Ready(t, 30*time.Second)
		held(t, env, "outbox", "seen")()
		awaitRecords(t, env, env.Prefix+"seen", 10)
		relay.Stop(t)
	})
}

// TestUnloggedPartition: rows of an unlogged partition are not in the WAL. The relay does not run
// as if they were.
func TestUnloggedPartition(t *testing.T) {
	env := Setup(t, Needs{Postgres: 16})
	env.Exec(t, `CREATE TABLE outbox (id uuid NOT NULL, aggregatetype text NOT NULL, aggregateid text NOT NULL, type text, payload jsonb) PARTITION BY LIST (aggregatetype)`)
	env.Exec(t, "CREATE TABLE outbox_a PARTITION OF outbox FOR VALUES IN ('order')")
	env.Init(t)
	relay := env.Run(t)
	relay.Ready(t, 30*time.Second)
	insert(t, env, "order", "k", 1)
	awaitRecords(t, env, env.Prefix+"order", 1)
	env.Exec(t, "CREATE UNLOGGED TABLE outbox_b PARTITION OF outbox FOR VALUES IN ('bulk')")
	insert(t, env, "order", "k", 1)
	halts(t, relay, "outbox_b is unlogged", "SET LOGGED")
}

// TestDatabaseClosed closes the database to connections for a moment, as maintenance does: an
// outage.
func TestDatabaseClosed(t *testing.T) {
	env := Setup(t, Needs{Postgres: 16, OwnPostgres: true})
	relay := running(t, env)
	execute(t, env.Server.URL("postgres"), "ALTER DATABASE "+env.Database+" ALLOW_CONNECTIONS false")
	execute(t, env.Server.URL("postgres"), "SELECT pg_terminate_backend(active_pid, 5000) FROM pg_replication_slots WHERE slot_name = $1", env.Slot)
	Eventually(t, 20*time.Second, "the relay to say why it waits", func() bool {
		_, reasons := relay.Get("/readyz")
		return strings.Contains(reasons, "is not currently accepting connections")
	})
	if !relay.Running() {
		t.Error("the relay has ended")
	}
	execute(t, env.Server.URL("postgres"), "ALTER DATABASE "+env.Database+" ALLOW_CONNECTIONS true")
	relay.Ready(t, 30*time.Second)
	relay.Stop(t)
}
