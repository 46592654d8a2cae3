package integration

import (
	"strings"
	"testing"
	"time"
)

// lost waits until Postgres has given up the slot.
func lost(t testing.TB, env *Env) {
	t.Helper()
	Eventually(t, time.Minute, "the slot to be invalidated", func() bool {
		env.Exec(t, "CHECKPOINT")
		return env.Value(t, "SELECT wal_status FROM pg_replication_slots WHERE slot_name = $1", env.Slot) == "lost"
	})
}

// replaced does what the hint says: another slot, and the events that were not published once more.
// Then all are there.
func replaced(t testing.TB, env *Env, delivery string, before int) {
	t.Helper()
	env.Exec(t, "SELECT pg_drop_replication_slot($1)", env.Slot)
	env.Init(t, "--accept-gap")
	relay := env.Run(t, "WALPOST_DELIVERY="+delivery)
	relay.Ready(t, 30*time.Second)
	env.Exec(t, `WITH gone AS (DELETE FROM outbox WHERE aggregateid = 'behind' RETURNING *)
		INSERT INTO outbox (id, aggregatetype, aggregateid, type, payload) SELECT id, aggregatetype, aggregateid, type, payload FROM gone`)
	if n := len(awaitRecords(t, env, env.Prefix+"order", before+10)); n != before+10 {
		t.Errorf("%d records, want the %d before and the 10 behind", n, before)
	}
	relay.Stop(t)
}

// TestIdleSlotInvalidated: idle_replication_slot_timeout invalidates the slot while no relay runs.
// The next start says so, and what to do; a relay that runs keeps its slot, however idle its outbox
// is.
func TestIdleSlotInvalidated(t *testing.T) {
	for _, delivery := range deliveries {
		t.Run(delivery, func(t *testing.T) {
			t.Parallel()
			env := Setup(t, Needs{Postgres: 18, Settings: map[string]string{"idle_replication_slot_timeout": "2s"}})
			relay := running(t, env, "WALPOST_DELIVERY="+delivery)
			for range 4 {
				time.Sleep(time.Second) // the slot is idle for longer than it may be without a relay
				env.Exec(t, "CHECKPOINT")
			}
			if !relay.IsReady() || reconnects(t, relay) != 0 {
				t.Fatal("the slot of a relay that runs was taken for an idle one")
			}
			relay.Stop(t)
			insert(t, env, "order", "behind", 10)
			lost(t, env)
			halts(t, env.Run(t, "WALPOST_DELIVERY="+delivery), "was invalidated", "idle_timeout",
				"pg_drop_replication_slot", "init --accept-gap")
			replaced(t, env, delivery, 1)
		})
	}
}

// TestSlotInvalidatedUnderTheRelay: the brokers are away, and more WAL is written than the slot may
// keep. Postgres ends the walsender and gives up the slot. The relay publishes what it has, and
// does not take the rest for an outage.
func TestSlotInvalidatedUnderTheRelay(t *testing.T) {
	matrix(t, func(t *testing.T, major int, delivery string) {
		env := Setup(t, Needs{Postgres: major, Kafka: Faulty, Settings: map[string]string{
			"max_slot_wal_keep_size": "16MB", "wal_keep_size": "0", "max_wal_size": "32MB", "min_wal_size": "32MB",
		}})
		relay := running(t, env, "WALPOST_DELIVERY="+delivery)
		env.Fake.Freeze()
		insert(t, env, "order", "received", 10)
		Eventually(t, 20*time.Second, "events in flight", func() bool { return relay.Metrics(t)["walpost_in_flight_events"] > 0 })
		for range 8 {
			env.Exec(t, "SELECT pg_logical_emit_message(false, 'noise', repeat('x', 16000000))")
		}
		lost(t, env)
		insert(t, env, "order", "behind", 10)
		Eventually(t, 20*time.Second, "the relay to be not ready", func() bool { return !relay.IsReady() })
		env.Fake.Thaw()
		halts(t, relay, "was invalidated", "pg_drop_replication_slot", "init --accept-gap")
		code, text := env.Walpost(t, nil, "status")
		if code == 0 || !strings.Contains(text, "was invalidated") || !strings.Contains(text, "init --accept-gap") {
			t.Errorf("walpost status ends with %d and says:\n%s", code, text)
		}
		replaced(t, env, delivery, 11)
	})
}
