package integration

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
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

// TestInitWaitsForWriters adds a table, and accepts a publication, while a transaction is open whose rows are not in the stream:
// pgoutput judges a row by the publication at its insertion. What commits after init has returned is in the stream.
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

// TestUnloggedPartition: rows of an unlogged partition are not in the WAL. The relay does not run as if they were.
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

// TestDatabaseClosed closes the database to connections for a moment, as maintenance does: an outage.
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

// TestStateTopicStuck: events can be written and the position cannot. What a kill repeats is bounded, and the relay says why it
// stands still.
func TestStateTopicStuck(t *testing.T) {
	env := Setup(t, Needs{Kafka: Faulty})
	env.Init(t)
	const bound = "WALPOST_MAX_IN_FLIGHT_BYTES=1MiB"
	relay := env.Run(t, bound)
	relay.Ready(t, 30*time.Second)
	insert(t, env, "flows", "k", 1)
	awaitRecords(t, env, env.Prefix+"flows", 1)
	env.Fake.FailProduce(t, env.StateTopic, kerr.NotLeaderForPartition.Code, -1)
	const rows = 20_000 // some twelve times the bound
	for range 200 {
		insert(t, env, "flows", "k", rows/200)
	}
	Eventually(t, 30*time.Second, "the relay to be not ready", func() bool { return !relay.IsReady() })
	_, reasons := relay.Get("/readyz")
	if !strings.Contains(reasons, env.StateTopic) {
		t.Errorf("/readyz says %q", reasons)
	}
	relay.WaitLog(t, 10*time.Second, "events or their position wait")
	Eventually(t, 30*time.Second, "what the bound allows to be published", func() bool { return published(t, env, relay, "flows") >= 1000 })
	if n := published(t, env, relay, "flows"); n > 2200 {
		t.Errorf("%v events were published behind the stored position, the bound is 1 MiB", n)
	}
	relay.Kill()
	env.Fake.Heal(t)
	relay = env.Run(t, bound)
	relay.Ready(t, 30*time.Second)
	if repeats := len(awaitRecords(t, env, env.Prefix+"flows", 1+rows)) - rows - 1; repeats == 0 || repeats > 2200 {
		t.Errorf("%d repeats after a kill, want some, and at most 1 MiB", repeats)
	}
	relay.Stop(t)
}

// TestRefusedEventRepeatsNothing: what came before an event that is too large, in the same transaction, is not published again
// once the limit was raised.
func TestRefusedEventRepeatsNothing(t *testing.T) {
	env := Setup(t, Needs{})
	topic := env.Prefix + "order"
	env.CreateTopic(t, topic, 1, map[string]string{"max.message.bytes": "100000"})
	relay := running(t, env)
	env.Exec(t, `INSERT INTO outbox (id, aggregatetype, aggregateid, type, payload)
		SELECT gen_random_uuid(), 'order', 'k', 'Happened', to_jsonb(CASE WHEN i = 900 THEN repeat('x', 200000) ELSE 'x' END) FROM generate_series(1, 1000) i`)
	halts(t, relay, "MESSAGE_TOO_LARGE")
	env.SetTopicConfig(t, topic, "max.message.bytes", "1000000")
	relay = env.Run(t)
	relay.Ready(t, 30*time.Second)
	if n := len(awaitRecords(t, env, topic, 1001)); n != 1001 {
		t.Errorf("%d records of 1001 events", n)
	}
	relay.Stop(t)
}

// TestLargerThanARequest: the topic takes an event that no request of the brokers' default size can carry. And a backlog of more
// than that, of many partitions, is sent in several requests.
func TestLargerThanARequest(t *testing.T) {
	env := Setup(t, Needs{Postgres: 16, Kafka: Own})
	env.CreateTopic(t, env.Prefix+"many", 150, nil)
	env.CreateTopic(t, env.Prefix+"big", 1, map[string]string{"max.message.bytes": "150000000"})
	env.Init(t)
	relay := env.Run(t, "WALPOST_MAX_IN_FLIGHT_BYTES=256MiB")
	relay.Ready(t, 30*time.Second)
	insert(t, env, "many", "k", 1)
	awaitRecords(t, env, env.Prefix+"many", 1)
	env.Kafka.Kill(0)
	env.Exec(t, `INSERT INTO outbox (id, aggregatetype, aggregateid, type, payload)
		SELECT gen_random_uuid(), 'many', i::text, 'Happened', to_jsonb(repeat('x', 100000)) FROM generate_series(1, 2400) i`)
	Eventually(t, 60*time.Second, "everything in flight", func() bool { return relay.Metrics(t)["walpost_in_flight_events"] == 2400 })
	if err := env.Kafka.Start(t.Context(), 0); err != nil {
		t.Fatal(err)
	}
	Eventually(t, 90*time.Second, "the backlog to be published", func() bool { return published(t, env, relay, "many") == 2401 })
	env.Exec(t, `INSERT INTO outbox (id, aggregatetype, aggregateid, type, payload) SELECT gen_random_uuid(), 'big', 'k', 'Happened', to_jsonb(repeat('x', 110000000))`)
	halts(t, relay, "MESSAGE_TOO_LARGE", "more than 100 MiB")
}

// TestTheFirstRefusedEventIsNamed: the brokers refuse an event while the row behind it is found to break the contract. Who passes over
// the row that is named must not pass over the other.
func TestTheFirstRefusedEventIsNamed(t *testing.T) {
	env := Setup(t, Needs{Kafka: Faulty})
	env.Exec(t, "CREATE TABLE outbox (id uuid, aggregatetype text, aggregateid text, type text, payload jsonb)") // without the checks of init
	env.Init(t)
	relay := env.Run(t, "WALPOST_KAFKA_LINGER=200ms")
	relay.Ready(t, 30*time.Second)
	for _, kind := range []string{"good", "refused"} {
		insert(t, env, kind, "k", 1)
		awaitRecords(t, env, env.Prefix+kind, 1)
	}
	env.Fake.FailProduce(t, env.Prefix+"refused", kerr.PolicyViolation.Code, -1)
	env.Exec(t, `DO $$ BEGIN
		INSERT INTO outbox VALUES (gen_random_uuid(), 'good', 'k', 'T1', '1'); COMMIT;
		INSERT INTO outbox VALUES (gen_random_uuid(), 'refused', 'k', 'T2', '2'); COMMIT;
		INSERT INTO outbox VALUES (gen_random_uuid(), 'no topic', 'k', 'T3', '3'); COMMIT; END $$`)
	halts(t, relay, "POLICY_VIOLATION", env.Prefix+"refused")
	halts(t, env.Run(t, "WALPOST_KAFKA_LINGER=200ms"), "POLICY_VIOLATION", env.Prefix+"refused")
	awaitRecords(t, env, env.Prefix+"good", 2)
	env.Fake.Heal(t)
	halts(t, env.Run(t), "no topic") // and now this one
	awaitRecords(t, env, env.Prefix+"refused", 2)
}
