package integration

import (
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
)

// ownHeaders are the headers of a record behind walpost's four.
func ownHeaders(r *kgo.Record) string {
	var parts []string
	for _, h := range r.Headers[4:] {
		value := "NULL"
		if h.Value != nil {
			value = string(h.Value)
		}
		parts = append(parts, h.Key+"="+value)
	}
	return strings.Join(parts, " ")
}

// TestHeadersOfText: many mappers store the object in a column of text. What is no object stops the
// relay all the same.
func TestHeadersOfText(t *testing.T) {
	onOldestAndNewest(t, func(t *testing.T, major int) {
		env := Setup(t, Needs{Postgres: major})
		env.Exec(t, `CREATE TABLE outbox (id uuid NOT NULL DEFAULT gen_random_uuid(), aggregatetype text NOT NULL, aggregateid text NOT NULL,
			type text, payload bytea, headers text)`)
		env.Init(t)
		relay := env.Run(t)
		relay.Ready(t, 30*time.Second)
		const one = "INSERT INTO outbox (aggregatetype, aggregateid, payload, headers) VALUES ('order', 'k', '', $1)"
		env.Exec(t, one, `{"s": "ü", "n": 1.50, "b":true, "o": {"x": [1, null]}, "z": null}`)
		env.Exec(t, one, nil)
		env.Exec(t, one, "null")
		env.Exec(t, "ALTER TABLE outbox ALTER COLUMN headers TYPE varchar(100)")
		env.Exec(t, one, " {} ")
		records := awaitRecords(t, env, env.Prefix+"order", 4)
		for i, want := range []string{`s=ü n=1.50 b=true o={"x": [1, null]} z=NULL`, "", "", ""} {
			if got := ownHeaders(records[i]); got != want {
				t.Errorf("record %d has headers %s, want %s", i, got, want)
			}
		}
		env.Exec(t, one, "a=b")
		halts(t, relay, "the headers are not a JSON object", "pg_replication_slot_advance")
	})
}

// TestHeadersThatAreNoStrings: the table that init makes takes them, too.
func TestHeadersThatAreNoStrings(t *testing.T) {
	env := Setup(t, Needs{Postgres: 18})
	env.Init(t)
	relay := env.Run(t)
	relay.Ready(t, 30*time.Second)
	env.Exec(t, `INSERT INTO outbox (id, aggregatetype, aggregateid, headers) VALUES (gen_random_uuid(), 'order', 'k', '{"n":1.50,"b":true,"o":{"x":[1,null]}}')`)
	if got, want := ownHeaders(awaitRecords(t, env, env.Prefix+"order", 1)[0]), `b=true n=1.50 o={"x": [1, null]}`; got != want {
		t.Errorf("headers are %s, want %s", got, want)
	}
	relay.Stop(t)
}

// TestHeadersWithNamesOfWalpost: the row's are left out, and the log says so once, also after a
// reconnect.
func TestHeadersWithNamesOfWalpost(t *testing.T) {
	env := Setup(t, Needs{Postgres: 18})
	env.Init(t)
	relay := env.Run(t)
	relay.Ready(t, 30*time.Second)
	const one = `INSERT INTO outbox (id, aggregatetype, aggregateid, headers) VALUES (gen_random_uuid(), 'order', 'k', '{"source": "mine", "a": "b"}')`
	env.Exec(t, one)
	awaitRecords(t, env, env.Prefix+"order", 1)
	env.Exec(t, "SELECT pg_terminate_backend(active_pid) FROM pg_replication_slots WHERE slot_name = $1", env.Slot)
	env.Exec(t, one)
	for _, r := range awaitRecords(t, env, env.Prefix+"order", 2) {
		if got := ownHeaders(r); got != "a=b" {
			t.Errorf("headers are %s, want a=b", got)
		}
	}
	if reconnects(t, relay) == 0 {
		t.Error("there was no reconnect")
	}
	relay.Stop(t)
	if n := strings.Count(relay.Log(), "names of walpost's own"); n != 1 {
		t.Errorf("the log says it %d times", n)
	}
}
