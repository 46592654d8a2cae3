package integration

import (
	"fmt"
	"maps"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
)

// TestTooLarge lets the broker's limit refuse one event among others of its key. The relay stops
// and names it; nothing later of the key is published; after the limit was raised it goes on, with
// nothing lost.
func TestTooLarge(t *testing.T) {
	t.Parallel()
	onBoth(t, func(t *testing.T, major int) {
		env := Setup(t, Needs{Postgres: major})
		env.Init(t)
		topic := env.Prefix + "order"
		env.CreateTopic(t, topic, 3, nil)
		relay := env.Run(t)
		relay.Ready(t, 30*time.Second)
		insert(t, env, "order", "k", 500)
		id := insertReturning(t, env, `INSERT INTO outbox (id, aggregatetype, aggregateid, type, payload)
			VALUES (gen_random_uuid(), 'order', 'k', 'Huge', jsonb_build_object('huge', repeat('x', 3000000))) RETURNING id`)
		insert(t, env, "order", "k", 500)
		halts(t, relay, id, topic, "MESSAGE_TOO_LARGE", "max.message.bytes")
		if n := len(awaitRecords(t, env, topic, 500)); n != 500 {
			t.Fatalf("%d records, want the 500 before the event that is too large", n)
		}
		halts(t, env.Run(t), id) // and again, until somebody acts
		env.SetTopicConfig(t, topic, "max.message.bytes", "4000000")
		relay = env.Run(t)
		relay.Ready(t, 30*time.Second)
		env.CheckTruth(t, env.ReadTruth(t)).Assert(t, 0)
		relay.Stop(t)
	})
}

// TestLimitLoweredUnderTheRelay makes the broker refuse batches that it took a moment before: the
// client learns of it from the broker's answer alone, with later events in flight.
func TestLimitLoweredUnderTheRelay(t *testing.T) {
	env := Setup(t, Needs{Postgres: 18, Kafka: Own})
	env.Init(t)
	topic := env.Prefix + "order"
	env.CreateTopic(t, topic, 1, nil)
	relay := env.Run(t)
	relay.Ready(t, 30*time.Second)
	insert(t, env, "order", "k", 1)
	awaitRecords(t, env, topic, 1)
	env.SetTopicConfig(t, topic, "max.message.bytes", "20000")
	for i := range 200 {
		size := 100
		if i == 50 { // the brokers refuse whole batches: it must not share one with its predecessor
			awaitRecords(t, env, topic, 51)
			size = 60_000
		}
		env.Exec(t, `INSERT INTO outbox (id, aggregatetype, aggregateid, type, payload)
			VALUES (gen_random_uuid(), 'order', 'k', $1, jsonb_build_object('x', repeat('x', $2::int)))`, fmt.Sprint("n", i), size)
	}
	halts(t, relay, topic, "MESSAGE_TOO_LARGE", env.Value(t, "SELECT id FROM outbox WHERE type = 'n50'"))
	records := awaitRecords(t, env, topic, 51)
	if len(records) != 51 {
		t.Fatalf("%d records, want the 51 before the refused one", len(records))
	}
	env.SetTopicConfig(t, topic, "max.message.bytes", "1000000")
	relay = env.Run(t)
	relay.Ready(t, 30*time.Second)
	env.CheckTruth(t, env.ReadTruth(t)).Assert(t, 0)
	relay.Stop(t)
}

// TestRowsThatBreakTheContract are refused by the table that init makes. A table without its checks
// lets them through: then the relay stops, and the hint says how to pass the transaction over.
func TestRowsThatBreakTheContract(t *testing.T) {
	bad := map[string]string{
		"empty key":     `'order', '', '{}'::jsonb, NULL`,
		"illegal topic": `'no topic', 'k', '{}'::jsonb, NULL`,
		"bad headers":   `'order', 'k', '{}'::jsonb, '["a"]'::jsonb`,
	}
	for name, values := range bad {
		t.Run(name, func(t *testing.T) {
			env := Setup(t, Needs{Postgres: 15})
			relay := running(t, env)
			sql := "INSERT INTO outbox (id, aggregatetype, aggregateid, payload, headers) VALUES (gen_random_uuid(), " + values + ")"
			refused := env.Value(t, "SELECT count(*) FROM pg_constraint WHERE conrelid = 'outbox'::regclass AND contype = 'c'")
			if refused == "0" {
				t.Fatal("init made no checks")
			}
			env.Exec(t, `DO $$ BEGIN `+strings.ReplaceAll(sql, "$$", "")+`; RAISE 'the table took it';
				EXCEPTION WHEN check_violation THEN NULL; END $$`)
			env.Exec(t, `DO $$ DECLARE c text; BEGIN FOR c IN SELECT conname FROM pg_constraint WHERE conrelid = 'outbox'::regclass AND contype = 'c'
				LOOP EXECUTE format('ALTER TABLE outbox DROP CONSTRAINT %I', c); END LOOP; END $$`)
			id := insertReturning(t, env, sql+" RETURNING id")
			insert(t, env, "order", "k", 3)
			halts(t, relay, id, "pg_replication_slot_advance")
			if n := len(awaitRecords(t, env, env.Prefix+"order", 1)); n != 1 {
				t.Errorf("%d records, want only the one before the bad row", n)
			}
			// The way out that the hint names.
			_, rest, _ := strings.Cut(relay.Log(), "SELECT pg_replication_slot_advance(")
			call, _, _ := strings.Cut(rest, ";")
			env.Exec(t, "SELECT pg_replication_slot_advance("+call)
			env.Init(t, "--accept-gap")
			relay = env.Run(t)
			relay.Ready(t, 30*time.Second)
			awaitRecords(t, env, env.Prefix+"order", 4)
			relay.Stop(t)
		})
	}
}

// TestSkipARow follows the manual: what the transaction of a bad row inserted behind it, also under
// a savepoint, is copied from the slot, skipped, and inserted again.
func TestSkipARow(t *testing.T) {
	t.Parallel()
	onBoth(t, func(t *testing.T, major int) {
		env := Setup(t, Needs{Postgres: major})
		relay := running(t, env)
		env.Exec(t, `DO $$ DECLARE c text; BEGIN FOR c IN SELECT conname FROM pg_constraint WHERE conrelid = 'outbox'::regclass AND contype = 'c'
			LOOP EXECUTE format('ALTER TABLE outbox DROP CONSTRAINT %I', c); END LOOP; END $$`)
		const insertOne = "INSERT INTO outbox (id, aggregatetype, aggregateid, payload) VALUES (gen_random_uuid(), 'order', '%s', '{}')"
		conn := env.Connect(t)
		for _, sql := range []string{
			"BEGIN", fmt.Sprintf(insertOne, "before"), fmt.Sprintf(insertOne, ""), fmt.Sprintf(insertOne, "behind"),
			"SAVEPOINT s", fmt.Sprintf(insertOne, "saved"), "RELEASE s", "COMMIT", fmt.Sprintf(insertOne, "later"),
		} {
			if _, err := conn.Exec(t.Context(), sql); err != nil {
				t.Fatal(err)
			}
		}
		id := env.Value(t, "SELECT id FROM outbox WHERE aggregateid = ''")
		halts(t, relay, id, "pg_replication_slot_advance")
		_, rest, _ := strings.Cut(relay.Log(), "SELECT pg_replication_slot_advance('"+env.Slot+"', '")
		lsn, _, _ := strings.Cut(rest, "'")

		manual, err := os.ReadFile("../docs/OPERATIONS.md")
		if err != nil {
			t.Fatal(err)
		}
		_, query, _ := strings.Cut(string(manual), "CREATE TABLE left_out AS")
		query, _, _ = strings.Cut(query, ";")
		env.Exec(t, "CREATE TABLE left_out AS"+strings.NewReplacer("'walpost', '0/16B3749'",
			"'"+env.Slot+"', '"+lsn+"'", "'...'", "'"+id+"'").Replace(query))
		if got := env.Value(t, "SELECT string_agg(aggregateid, ' ' ORDER BY n) FROM left_out"); got != "behind saved" {
			t.Errorf("the query of the manual finds %q, want what is behind the bad row", got)
		}
		env.Exec(t, fmt.Sprintf("SELECT pg_replication_slot_advance('%s', '%s')", env.Slot, lsn))
		env.Init(t, "--accept-gap")
		relay = env.Run(t)
		relay.Ready(t, 30*time.Second)
		env.Exec(t, "INSERT INTO outbox (aggregatetype, aggregateid, payload) SELECT aggregatetype, aggregateid, payload FROM left_out ORDER BY n")
		keys := map[string]int{}
		for _, r := range awaitRecords(t, env, env.Prefix+"order", 5) {
			keys[string(r.Key)]++
		}
		if want := map[string]int{"k": 1, "before": 1, "behind": 1, "saved": 1, "later": 1}; !maps.Equal(keys, want) {
			t.Errorf("keys %v are there, want %v", keys, want)
		}
		relay.Stop(t)
	})
}

// TestRefusedEventRepeatsNothing: what came before an event that is too large, in the same
// transaction, is not published again once the limit was raised.
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

// TestTheFirstRefusedEventIsNamed: the brokers refuse an event while the row behind it is found to
// break the contract. To skip the row that is named must not skip the other.
func TestTheFirstRefusedEventIsNamed(t *testing.T) {
	env := Setup(t, Needs{Kafka: Faulty})
	// Without the checks of init.
	env.Exec(t, "CREATE TABLE outbox (id uuid, aggregatetype text, aggregateid text, type text, payload jsonb)")
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

// TestExactlyOnceRefusedEvent: the brokers refuse an event, and with it its Kafka transaction. What
// came before it is published, nothing behind it, and the relay says which it is.
func TestExactlyOnceRefusedEvent(t *testing.T) {
	env := Setup(t, Needs{Postgres: 18})
	env.Init(t)
	topic := env.Prefix + "order"
	env.CreateTopic(t, topic, 1, map[string]string{"max.message.bytes": "20000"})
	relay := env.Run(t, exactlyOnce)
	relay.Ready(t, 30*time.Second)
	env.Exec(t, fmt.Sprintf(`INSERT INTO outbox (id, aggregatetype, aggregateid, payload)
		SELECT gen_random_uuid(), 'order', 'k', jsonb_build_object('i', i, 'x', repeat('x', CASE i WHEN 501 THEN 50000 ELSE 1 END)) FROM generate_series(1, %d) i`, 1000))
	refused := env.Value(t, "SELECT id FROM outbox WHERE payload->>'i' = '501'")
	halts(t, relay, "MESSAGE_TOO_LARGE", "max.message.bytes", refused)
	if n := len(awaitRecords(t, env, topic, 500)); n != 500 {
		t.Errorf("%d records, want the 500 before the refused event", n)
	}
}
