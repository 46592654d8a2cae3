package integration

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/walpost/walpost/internal/pgserver"
)

// TestPostgresRestarts restarts Postgres in every way under load. The relay stays, loses nothing
// and repeats nothing.
func TestPostgresRestarts(t *testing.T) {
	t.Parallel()
	for _, major := range []int{15, 18} {
		t.Run(fmt.Sprint("postgres ", major), func(t *testing.T) {
			env := Setup(t, Needs{Postgres: major, OwnPostgres: true})
			env.Init(t)
			relay := env.Run(t)
			work := env.Workload(t, WorkloadOptions{Rate: 3000, Outages: true})
			relay.Ready(t, 30*time.Second)
			stops := map[string]func(){
				"fast":      func() { stopPostgres(t, env, pgserver.Fast, 15*time.Second) },
				"immediate": func() { stopPostgres(t, env, pgserver.Immediate, 15*time.Second) },
				"kill -9":   func() { env.Server.Kill() },
			}
			for range 2 {
				for how, stop := range stops {
					work.WaitCommitted(t, work.Committed()+2000)
					stop()
					Eventually(t, 20*time.Second, "the relay to notice", func() bool { return !relay.IsReady() })
					if err := env.Server.Restart(t.Context()); err != nil {
						t.Fatalf("start after %s: %v", how, err)
					}
					relay.Ready(t, 30*time.Second)
				}
			}
			work.WaitCommitted(t, work.Committed()+1000)
			work.Stop(t)
			env.Check(t, work).Assert(t, 0)
			if n := relay.Metrics(t)[`walpost_reconnects_total{peer="postgres"}`]; n < 6 {
				t.Errorf("%v reconnects after 6 restarts", n)
			}
			relay.Stop(t)
			env.Check(t, work).Assert(t, 0)
		})
	}
}

// TestPostgresKilledInsideATransaction crashes Postgres while the relay is in the middle of a large
// transaction: it comes again from its start, and the relay goes on with the row that follows what
// it has published.
func TestPostgresKilledInsideATransaction(t *testing.T) {
	t.Parallel()
	env := Setup(t, Needs{Postgres: 15, OwnPostgres: true})
	env.Init(t)
	relay := env.Run(t, "WALPOST_MAX_IN_FLIGHT_BYTES=1MiB")
	relay.Ready(t, 30*time.Second)
	const rows = 300_000
	insert(t, env, "order", "k", rows)
	published := func() float64 {
		return relay.Metrics(t)[`walpost_events_published_total{topic="`+env.Prefix+`order"}`]
	}
	for i := range 3 {
		Eventually(t, time.Minute, "some rows to be published", func() bool { return published() > float64(5000+i*40_000) })
		env.Server.Kill()
		if err := env.Server.Restart(t.Context()); err != nil {
			t.Fatal(err)
		}
		relay.Ready(t, 30*time.Second)
	}
	records := awaitRecords(t, env, env.Prefix+"order", rows)
	if len(records) != rows {
		t.Fatalf("%d records of %d events", len(records), rows)
	}
	for i, r := range records {
		if want := fmt.Sprintf(`{"i": %d}`, i+1); string(r.Value) != want {
			t.Fatalf("record %d is %s, want %s", i, r.Value, want)
		}
	}
}

// TestIdleOutboxBesideABusyDatabase writes 200 MB into another database: the slot follows, and
// nothing is written into ours.
func TestIdleOutboxBesideABusyDatabase(t *testing.T) {
	env := Setup(t, Needs{Postgres: 15, OwnPostgres: true, Settings: map[string]string{"max_wal_size": "64MB", "checkpoint_timeout": "30s"}})
	env.Init(t)
	relay := env.Run(t)
	relay.Ready(t, 30*time.Second)
	insert(t, env, "order", "k", 1)
	awaitRecords(t, env, env.Prefix+"order", 1)
	xacts := "SELECT sum(n_tup_ins + n_tup_upd + n_tup_del)::text FROM pg_stat_user_tables"
	other, err := pgx.Connect(t.Context(), env.Server.URL("postgres"))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = other.Close(context.Background()) }()
	// The statistics of a session come when it has ended.
	Eventually(t, 20*time.Second, "the statistics to show our row", func() bool { return env.Value(t, xacts) == "1" })
	for i := range 200 { // a megabyte each; the first creates the table
		sql := "INSERT INTO noise SELECT repeat(md5(i::text), 32) FROM generate_series(1, 1000) i"
		if i == 0 {
			sql = "CREATE TABLE noise AS SELECT repeat(md5(i::text), 32) AS text FROM generate_series(1, 1000) i"
		}
		if _, err := other.Exec(t.Context(), sql); err != nil {
			t.Fatal(err)
		}
	}
	lag := func(column string) int {
		var bytes int
		if _, err := fmt.Sscan(env.Value(t, "SELECT (pg_current_wal_lsn() - "+column+")::bigint::text FROM pg_replication_slots WHERE slot_name = $1", env.Slot), &bytes); err != nil {
			t.Fatal(err)
		}
		return bytes
	}
	Eventually(t, 40*time.Second, "the confirmed lag to return to about zero",
		func() bool { return lag("confirmed_flush_lsn") < 64<<10 })
	Eventually(t, 60*time.Second, "the restart lag to return to about zero",
		func() bool { return lag("restart_lsn") < 1<<20 })
	if rows := env.Value(t, xacts); rows != "1" {
		t.Errorf("somebody wrote into the database: %s rows were changed, one of them by us", rows)
	}
	Eventually(t, 30*time.Second, "the metrics to say the same", func() bool {
		m := relay.Metrics(t)
		return m["walpost_confirmed_lag_bytes"] < 64<<10 && m["walpost_restart_lag_bytes"] < 1<<20
	})
	relay.Stop(t)
}
