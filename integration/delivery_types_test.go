package integration

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
)

// onOldestAndNewest runs a test with the ends of what is supported.
func onOldestAndNewest(t *testing.T, f func(t *testing.T, major int)) {
	t.Parallel()
	for _, major := range []int{14, 18} {
		t.Run(fmt.Sprint("postgres ", major), func(t *testing.T) {
			t.Parallel()
			f(t, major)
		})
	}
}

// TestColumnTypes: what a payload and headers may be; what they may not be is refused before the
// first row.
func TestColumnTypes(t *testing.T) {
	onOldestAndNewest(t, func(t *testing.T, major int) {
		env := Setup(t, Needs{Postgres: major})
		runScript(t, env, `CREATE EXTENSION citext; CREATE EXTENSION hstore; CREATE DOMAIN body AS jsonb; CREATE DOMAIN bytes AS bytea CHECK (length(value) > 0);
			CREATE DOMAIN deep AS bytes; CREATE TYPE kind AS ENUM ('order');
			CREATE TABLE outbox (id uuid NOT NULL DEFAULT gen_random_uuid(), aggregatetype kind NOT NULL, aggregateid citext NOT NULL, type int, payload deep, headers body)`)
		env.Init(t)
		values := []string{}
		for _, c := range []struct{ typ, using, value, want string }{
			{"", "", `'\x00ff'`, "\x00\xff"},
			{"bytes", "payload", `'\x01ff'`, "\x01\xff"},
			{"body", "'{}'", `'{"a": null}'`, `{"a": null}`},
			{"xml", "'<a/>'", "'<b>é</b>'", "<b>é</b>"},
			{"citext", "'x'", "'MiXed'", "MiXed"},
			{"varchar(10)", "'x'", "'short'", "short"},
			{"char(5)", "'x'", "'pad'", "pad  "},
			{"json", "'{}'", `'{"b":1, "a":2}'`, `{"b":1, "a":2}`},
		} {
			if c.typ != "" {
				env.Exec(t, fmt.Sprintf("ALTER TABLE outbox ALTER payload TYPE %s USING %s", c.typ, c.using))
			}
			relay := env.Run(t)
			relay.Ready(t, 30*time.Second)
			env.Exec(t, `INSERT INTO outbox (aggregatetype, aggregateid, type, payload, headers) VALUES ('order', 'Key', 7, `+c.value+`, '{"h": "v"}')`)
			values = append(values, c.want)
			records := awaitRecords(t, env, env.Prefix+"order", len(values))
			last := records[len(records)-1]
			if len(records) != len(values) || string(last.Value) != c.want || headerValue(last, "h") != "v" ||
				headerValue(last, "type") != "7" || string(last.Key) != "Key" {
				t.Errorf("type %s: %d records, the last %q with headers %v", c.typ, len(records), last.Value,
					last.Headers)
			}
			relay.Stop(t)
		}
		for _, c := range []struct{ column, typ, using, says string }{
			{"payload", "hstore", "''", `"payload" is of type public.hstore`},
			{"payload", "int", "1", `"payload" is of type integer`},
			{"payload", "kind", "'order'", `"payload" is of type public.kind`},
			{"headers", "hstore", "''", `"headers" is of type public.hstore`},
			{"headers", "bytea", "''", `"headers" is of type bytea`},
		} {
			env.Exec(t, fmt.Sprintf("ALTER TABLE outbox ALTER %s TYPE %s USING %s", c.column, c.typ, c.using))
			refused(t, env, nil, c.says, "WALPOST_COLUMNS")
			if c.column == "payload" {
				env.Exec(t, "ALTER TABLE outbox ALTER payload TYPE jsonb USING '{}'")
			}
		}
	})
}

// TestJSONNull: in headers it means none, or a header with a null value; as a payload it is no
// tombstone.
func TestJSONNull(t *testing.T) {
	onOldestAndNewest(t, func(t *testing.T, major int) {
		env := Setup(t, Needs{Postgres: major})
		env.Init(t)
		relay := env.Run(t)
		relay.Ready(t, 30*time.Second)
		env.Exec(t, `INSERT INTO outbox (aggregatetype, aggregateid, payload, headers) VALUES ('order', 'k', 'null', 'null'),
			('order', 'k', NULL, '{"a": null, "b": "", "c": "null"}')`)
		records := awaitRecords(t, env, env.Prefix+"order", 2)
		own := func(r *kgo.Record) (text string) {
			for _, h := range r.Headers[4:] {
				text += fmt.Sprintf("%s=%q null:%t ", h.Key, h.Value, h.Value == nil)
			}
			return text
		}
		if first, got := records[0], own(records[0]); string(first.Value) != "null" || got != "" {
			t.Errorf("payload and headers null: value %q, headers %s", first.Value, got)
		}
		const want = `a="" null:true b="" null:false c="null" null:false `
		if second, got := records[1], own(records[1]); second.Value != nil || got != want {
			t.Errorf("payload NULL, members null: value %q, headers %s, want %s", second.Value, got, want)
		}
		relay.Stop(t)
	})
}

// TestGeneratedColumns: they do not reach the stream, but for stored ones on Postgres 18 if the
// publication says so.
func TestGeneratedColumns(t *testing.T) {
	t.Parallel()
	for _, major := range []int{14, 15, 18} {
		t.Run(fmt.Sprint("postgres ", major), func(t *testing.T) {
			t.Parallel()
			env := Setup(t, Needs{Postgres: major})
			runScript(t, env, `CREATE TABLE outbox (id uuid NOT NULL DEFAULT gen_random_uuid(), aggregatetype text NOT NULL, aggregateid text NOT NULL, payload jsonb,
				type text GENERATED ALWAYS AS (payload->>'type') STORED, other text GENERATED ALWAYS AS ('x') STORED)`)
			runScript(t, env, "CREATE PUBLICATION walpost FOR TABLE outbox WITH (publish = 'insert')")
			env.Exec(t, "SELECT pg_create_logical_replication_slot($1, 'pgoutput')", env.Slot)
			refused(t, env, nil, `"type"`, "generated")
			if major < 18 {
				// The remedy that is left: a trigger fills it.
				runScript(t, env, `ALTER TABLE outbox ALTER type DROP EXPRESSION;
					CREATE FUNCTION fill() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN NEW.type := NEW.payload->>'type'; RETURN NEW; END $$;
					CREATE TRIGGER fill BEFORE INSERT ON outbox FOR EACH ROW EXECUTE FUNCTION fill()`)
			} else {
				env.Exec(t, "ALTER PUBLICATION walpost SET (publish_generated_columns = stored)")
			}
			env.Init(t)
			relay := env.Run(t)
			relay.Ready(t, 30*time.Second)
			env.Exec(t, `INSERT INTO outbox (aggregatetype, aggregateid, payload) VALUES ('order', 'k', '{"type": "Paid"}')`)
			if records := awaitRecords(t, env, env.Prefix+"order", 1); headerValue(records[0], "type") != "Paid" {
				t.Errorf("headers are %v", records[0].Headers)
			}
			quietly(t, relay)
			relay.Stop(t)
			if major < 18 {
				return
			}
			env.Exec(t, "ALTER PUBLICATION walpost SET (publish_generated_columns = none)")
			env.Exec(t, "ALTER PUBLICATION walpost SET TABLE outbox (id, aggregatetype, aggregateid, payload, type)")
			env.Init(t, "--accept-gap")
			relay = env.Run(t)
			relay.Ready(t, 30*time.Second)
			relay.Stop(t)
		})
	}
}

// TestSubscriptionIntoTheOutbox: rows that a subscription copies and applies are events, unless
// WALPOST_ORIGIN says that they are none.
func TestSubscriptionIntoTheOutbox(t *testing.T) {
	onOldestAndNewest(t, func(t *testing.T, major int) {
		env := Setup(t, Needs{Postgres: major})
		source := Setup(t, Needs{Postgres: major})
		source.Init(t)
		insert(t, source, "order", "copied", 3)
		env.Init(t)
		relay := env.Run(t, "WALPOST_ORIGIN=none")
		relay.Ready(t, 30*time.Second)
		source.Exec(t, "SELECT pg_create_logical_replication_slot('"+env.Slot+"_sub', 'pgoutput')")
		env.Exec(t, fmt.Sprintf("CREATE SUBSCRIPTION %[1]s_sub CONNECTION '%[2]s' PUBLICATION walpost WITH (create_slot = false)", env.Slot, source.URL()))
		conn := env.Connect(t)
		t.Cleanup(func() { // before its database goes
			for _, sql := range []string{"DISABLE", "SET (slot_name = NONE)"} {
				_, _ = conn.Exec(context.Background(), "ALTER SUBSCRIPTION "+env.Slot+"_sub "+sql)
			}
			if _, err := conn.Exec(context.Background(), "DROP SUBSCRIPTION "+env.Slot+"_sub"); err != nil {
				t.Error(err)
			}
		})
		Eventually(t, 30*time.Second, "the rows to be copied", func() bool { return env.Value(t, "SELECT count(*) FROM outbox") == "3" })
		insert(t, source, "order", "applied", 3)
		Eventually(t, 30*time.Second, "the rows to be applied", func() bool { return env.Value(t, "SELECT count(*) FROM outbox") == "6" })
		insert(t, env, "order", "own", 1)
		records := awaitRecords(t, env, env.Prefix+"order", 1)
		if len(records) != 1 || string(records[0].Key) != "own" {
			t.Errorf("%d records, the first of %q; want the one that was inserted here", len(records), records[0].Key)
		}
		if strings.Contains(relay.Log(), "subscription") {
			t.Errorf("the relay warns of what it leaves out:\n%s", relay.Log())
		}
		relay.Stop(t)

		relay = env.Run(t)
		relay.Ready(t, 30*time.Second)
		warned(t, env, relay, "WALPOST_ORIGIN=none")
		insert(t, source, "order", "applied", 2)
		if n := len(awaitRecords(t, env, env.Prefix+"order", 3)); n != 3 {
			t.Errorf("%d records, want 3", n)
		}
		relay.Stop(t)
	})
}
