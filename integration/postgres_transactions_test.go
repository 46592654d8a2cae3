package integration

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/walpost/walpost/internal/pgserver"
)

// namesHolder waits until /status and "walpost status" say what holds restart_lsn.
func namesHolder(t testing.TB, env *Env, relay *Relay, holder string) {
	t.Helper()
	Eventually(t, 30*time.Second, "/status to name "+holder, func() bool {
		return strings.Contains(fmt.Sprint(relay.Status(t)["restart_lsn_holder"]), holder)
	})
	for _, from := range []string{relay.Addr(), ""} { // from the relay, and from the servers alone
		_, text := env.Walpost(t, []string{"WALPOST_HTTP_ADDR=" + from}, "status")
		if !strings.Contains(text, "held by "+holder) {
			t.Errorf("walpost status does not name %s:\n%s", holder, text)
		}
	}
}

// TestLongTransactionElsewhere has a transaction open in another database of the server: the relay
// goes on, though the slot keeps WAL, and the session is named.
func TestLongTransactionElsewhere(t *testing.T) {
	matrix(t, func(t *testing.T, major int, delivery string) {
		// Without the page images that each checkpoint brings about, a lag is what was written.
		env := Setup(t, Needs{Postgres: major, Settings: map[string]string{"full_page_writes": "off"}})
		env.Init(t)
		relay := env.Run(t, "WALPOST_DELIVERY="+delivery)
		relay.Ready(t, 30*time.Second)
		var pid int
		elsewhere, err := pgx.Connect(t.Context(), env.Server.URL("postgres")+"&application_name=nightly")
		if err != nil {
			t.Fatal(err)
		}
		open, err := elsewhere.Begin(t.Context())
		if err == nil {
			err = open.QueryRow(t.Context(), "SELECT pg_backend_pid() FROM pg_current_xact_id()").Scan(&pid)
		}
		if err != nil {
			t.Fatal(err)
		}
		work := env.Workload(t, WorkloadOptions{Rate: 1500})
		work.WaitCommitted(t, 3000)
		namesHolder(t, env, relay, fmt.Sprintf("pid %d (postgres, nightly)", pid))
		lags := func() (confirmed, restart float64) {
			env.Exec(t, "CHECKPOINT") // lets restart_lsn go as far as it may
			m := relay.Metrics(t)
			return m["walpost_confirmed_lag_bytes"], m["walpost_restart_lag_bytes"]
		}
		env.Exec(t, "SELECT pg_logical_emit_message(false, 'noise', repeat('x', 32 << 20))")
		Eventually(t, 30*time.Second, "the restart lag to be large and the confirmed lag to be small", func() bool {
			confirmed, restart := lags()
			return restart > 32<<20 && confirmed < 8<<20
		})
		if err := open.Rollback(t.Context()); err != nil {
			t.Fatal(err)
		}
		Eventually(t, 60*time.Second, "the restart lag to go with the transaction", func() bool {
			_, restart := lags()
			return restart < 16<<20 && !strings.Contains(fmt.Sprint(relay.Status(t)["restart_lsn_holder"]), "nightly")
		})
		if err := elsewhere.Close(t.Context()); err != nil {
			t.Error(err)
		}
		whole(t, env, work, relay)
	})
}

// TestPreparedTransactions are published when and if they are committed, also after a crash of
// Postgres in between.
func TestPreparedTransactions(t *testing.T) {
	matrix(t, func(t *testing.T, major int, delivery string) {
		env := Setup(t, Needs{Postgres: major, Settings: map[string]string{"max_prepared_transactions": "10"}})
		env.Init(t)
		relay := env.Run(t, "WALPOST_DELIVERY="+delivery)
		work := env.Workload(t, WorkloadOptions{Rate: 500, Outages: true})
		relay.Ready(t, 30*time.Second)
		for name, key := range map[string]string{"kept": "k", "dropped": "k", "alone": "l"} {
			tx, err := env.Connect(t).Begin(t.Context())
			if err == nil {
				_, err = tx.Exec(t.Context(), fmt.Sprintf(numbered, key, 11, 20))
			}
			if err == nil {
				_, err = tx.Exec(t.Context(), "PREPARE TRANSACTION '"+name+"'")
			}
			if err != nil {
				t.Fatal(err)
			}
		}
		env.Exec(t, fmt.Sprintf(numbered, "k", 1, 10)) // committed before the one that was prepared
		work.WaitCommitted(t, work.Committed()+300)
		namesHolder(t, env, relay, "prepared transaction '")
		stopPostgres(t, env, pgserver.Immediate, 15*time.Second)
		if err := env.Server.Restart(t.Context()); err != nil {
			t.Fatal(err)
		}
		work.WaitCommitted(t, work.Committed()+300)
		env.Exec(t, "ROLLBACK PREPARED 'dropped'")
		env.Exec(t, "COMMIT PREPARED 'kept'")
		env.Exec(t, fmt.Sprintf(numbered, "k", 21, 30))
		env.Exec(t, "COMMIT PREPARED 'alone'")
		work.WaitCommitted(t, work.Committed()+100)
		whole(t, env, work, relay)
		if n := env.Value(t, "SELECT count(*) FROM outbox WHERE aggregatetype = 'other'"); n != "40" {
			t.Errorf("the table has %s events, want the 40 that were committed", n)
		}
	})
}

// TestManySubtransactions commits one transaction of 20,000 savepoints, of which every third is
// rolled back.
func TestManySubtransactions(t *testing.T) {
	matrix(t, func(t *testing.T, major int, delivery string) {
		env := Setup(t, Needs{Postgres: major})
		env.Init(t)
		relay := env.Run(t, "WALPOST_DELIVERY="+delivery)
		work := env.Workload(t, WorkloadOptions{Rate: 300})
		relay.Ready(t, 30*time.Second)
		env.Exec(t, `DO $$ BEGIN FOR n IN 1..20000 LOOP
			BEGIN
				INSERT INTO outbox (id, aggregatetype, aggregateid, type, payload, headers)
					VALUES (gen_random_uuid(), 'other', (n % 7)::text, 'Happened', jsonb_build_object('n', n), jsonb_build_object('seq', n::text));
				IF n % 3 = 0 THEN RAISE division_by_zero; END IF;
			EXCEPTION WHEN division_by_zero THEN NULL; -- back to the savepoint before the row
			END;
		END LOOP; END $$`)
		whole(t, env, work, relay)
		if n := env.Value(t, "SELECT count(*) FROM outbox WHERE aggregatetype = 'other'"); n != "13334" {
			t.Errorf("the table has %s events, want 13,334", n)
		}
	})
}
