package integration

import (
	"fmt"
	"strings"
	"testing"
	"time"
)

// TestTwoPhaseSlot: a slot with two_phase works until the first transaction is prepared.
func TestTwoPhaseSlot(t *testing.T) {
	t.Parallel()
	for _, major := range []int{15, 18} {
		t.Run(fmt.Sprint("postgres ", major), func(t *testing.T) {
			t.Parallel()
			env := Setup(t, Needs{Postgres: major, Settings: map[string]string{"max_prepared_transactions": "5"}})
			running(t, env).Stop(t)
			env.Exec(t, "SELECT pg_drop_replication_slot($1)", env.Slot)
			env.Exec(t, "SELECT pg_create_logical_replication_slot($1, 'pgoutput', false, true)", env.Slot)
			env.Init(t, "--print")
			refused(t, env, nil, "two_phase")
			runScript(t, env, "BEGIN; INSERT INTO outbox (aggregatetype, aggregateid) VALUES ('order', 'prepared'); PREPARE TRANSACTION 'p'")
			insert(t, env, "order", "k", 1)
			runScript(t, env, "COMMIT PREPARED 'p'")

			_, output := env.Walpost(t, nil, "init")
			_, copies, _ := strings.Cut(output, "no two_phase: ")
			copies, _, _ = strings.Cut(copies, "; then start walpost")
			for _, sql := range strings.Split(copies, "; ") {
				env.Exec(t, sql)
			}
			env.Init(t, "--accept-gap") // the test has made another slot
			relay := env.Run(t)
			relay.Ready(t, 30*time.Second)
			if n := len(awaitRecords(t, env, env.Prefix+"order", 3)); n != 3 {
				t.Errorf("%d records, want 3", n)
			}
			relay.Stop(t)
		})
	}
}

// TestLockedTables: nothing that the relay asks waits for locks on the tables, however many there
// are, or of however many.
func TestLockedTables(t *testing.T) {
	t.Parallel()
	for _, major := range []int{14, 18} {
		t.Run(fmt.Sprint("postgres ", major), func(t *testing.T) {
			t.Parallel()
			env := Setup(t, Needs{Postgres: major, Settings: map[string]string{"max_locks_per_transaction": "10", "max_connections": "20"}})
			runScript(t, env, `CREATE TABLE outbox (id uuid NOT NULL DEFAULT gen_random_uuid(), aggregatetype text NOT NULL, aggregateid text NOT NULL, type text, payload jsonb, headers jsonb)
				PARTITION BY HASH (aggregateid)`)
			for from := 0; from < 1000; from += 100 { // each in a transaction of its own, for the locks
				env.Exec(t, fmt.Sprintf(`DO $$ BEGIN FOR i IN %d..%d LOOP
					EXECUTE format('CREATE TABLE p%%s PARTITION OF outbox FOR VALUES WITH (MODULUS 1000, REMAINDER %%s)', i, i); END LOOP; END $$`, from, from+99))
			}
			relay := running(t, env)
			locker, err := env.Connect(t).Begin(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			if _, err := locker.Exec(t.Context(), "LOCK TABLE p17 IN ACCESS EXCLUSIVE MODE"); err != nil {
				t.Fatal(err)
			}
			insert(t, env, "order", "k", 1)
			awaitConfirmed(t, env, awaitRecords(t, env, env.Prefix+"order", 2)[1])
			relay.Stop(t)
			relay = env.Run(t)
			relay.Ready(t, 30*time.Second)
			if code, output := env.Walpost(t, []string{"WALPOST_HTTP_ADDR="}, "status"); strings.Contains(output, "wrong") && strings.Contains(output, "lock") {
				t.Errorf("status: %d\n%s", code, output)
			}
			env.Init(t)
			relay.Stop(t)
			if err := locker.Rollback(t.Context()); err != nil {
				t.Fatal(err)
			}
		})
	}
}

// TestInitNamesWhoBlocks: to add a table to a publication takes a lock on it.
func TestInitNamesWhoBlocks(t *testing.T) {
	t.Parallel()
	env := Setup(t, Needs{})
	env.Exec(t, "CREATE TABLE outbox (id uuid NOT NULL DEFAULT gen_random_uuid(), aggregatetype text NOT NULL, aggregateid text NOT NULL, payload jsonb)")
	conn := env.Connect(t)
	locker, err := conn.Begin(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := locker.Exec(t.Context(), "LOCK TABLE outbox IN ACCESS EXCLUSIVE MODE"); err != nil {
		t.Fatal(err)
	}
	waiting := env.start(t, nil, "init")
	waiting.WaitLog(t, 20*time.Second, fmt.Sprintf("waiting for a lock that pid %d", conn.PgConn().PID()))
	if err := locker.Commit(t.Context()); err != nil {
		t.Fatal(err)
	}
	if code := waiting.Wait(t, 20*time.Second); code != 0 {
		t.Errorf("init: %d\n%s", code, waiting.Log())
	}
}
