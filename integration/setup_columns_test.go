package integration

import (
	"fmt"
	"testing"
	"time"
)

// TestSettingsThatDoNotFitTheTable: what the settings name and the table lacks is refused before
// the first row, by every command.
func TestSettingsThatDoNotFitTheTable(t *testing.T) {
	onOldestAndNewest(t, func(t *testing.T, major int) {
		env := Setup(t, Needs{Postgres: major})
		env.Exec(t, "CREATE TABLE outbox (id uuid NOT NULL DEFAULT gen_random_uuid(), aggregatetype text NOT NULL, aggregateid text NOT NULL, payload jsonb)")
		env.Init(t)
		env.Exec(t, "INSERT INTO outbox (aggregatetype, aggregateid, payload) VALUES ('order', 'k', '{}')")
		for _, c := range []struct{ setting, says string }{
			{"WALPOST_COLUMNS=payload=body", `"body"`},
			{"WALPOST_COLUMNS=aggregateid=key", `"key"`},
			{"WALPOST_COLUMNS=type=kind", `"kind"`},
			{"WALPOST_COLUMNS=headers=meta", `"meta"`},
			{"WALPOST_TOPIC=" + env.Prefix + "{region}", `"region", which WALPOST_TOPIC names`},
		} {
			refused(t, env, []string{c.setting}, c.says)
		}
		relay := env.Run(t)
		relay.Ready(t, 30*time.Second)
		awaitRecords(t, env, env.Prefix+"order", 1)

		// Whoever waits for the slot with such settings would have it once the other lets go.
		code, output := env.Walpost(t, []string{"WALPOST_COLUMNS=type=kind", "WALPOST_HTTP_ADDR="}, "run")
		if code != 3 {
			t.Errorf("beside another relay: exit code %d:\n%s", code, lastLines(output, 5))
		}
		relay.Stop(t)
		env.Exec(t, "ALTER TABLE outbox RENAME payload TO body")
		refused(t, env, nil, `"payload"`, "WALPOST_COLUMNS")
	})
}

// TestColumnRenamedWhileTheRelayIsDown: rows from before, from behind the change and from behind
// its reversal need settings of their own. Each start publishes what its settings are for and stops
// at the rest, and nothing is lost or repeated.
func TestColumnRenamedWhileTheRelayIsDown(t *testing.T) {
	for column, rows := range map[string][2]string{
		"payload": {"payload", "body"}, // which no event can do without
		"headers": {"headers", "meta"}, // which one can
	} {
		t.Run(column, func(t *testing.T) {
			onOldestAndNewest(t, func(t *testing.T, major int) {
				env := Setup(t, Needs{Postgres: major})
				running(t, env).Stop(t)
				insertAs := func(n int, own string) {
					t.Helper()
					env.Exec(t, fmt.Sprintf(`INSERT INTO outbox (id, aggregatetype, aggregateid, %s) VALUES (gen_random_uuid(), 'order', 'k', '{"n": "%d"}')`, own, n))
				}
				before, after := rows[0], rows[1]
				mapped := "WALPOST_COLUMNS=" + column + "=" + after
				plain := "WALPOST_COLUMNS=" + column + "=" + before // as the table is called at first
				insertAs(1, before)
				env.Exec(t, "ALTER TABLE outbox RENAME "+before+" TO "+after)
				// What an event can do without may have been added: no row of before is refused for
				// it.
				if column == "payload" {
					halts(t, env.Run(t, mapped), `\"body\" is missing`, "when this row was inserted")
				}
				halts(t, env.Run(t, plain), before, "WALPOST_COLUMNS") // which publishes the first
				awaitRecords(t, env, env.Prefix+"order", 2)

				insertAs(2, after)
				// A row of the present shape, and no hint to skip it.
				halts(t, env.Run(t, plain), before, "WALPOST_COLUMNS")
				env.Exec(t, "ALTER TABLE outbox RENAME "+after+" TO "+before)
				insertAs(3, before)
				halts(t, env.Run(t, mapped), after, "WALPOST_COLUMNS") // which publishes the second
				awaitRecords(t, env, env.Prefix+"order", 3)
				relay := env.Run(t, plain)
				relay.Ready(t, 30*time.Second)
				records := awaitRecords(t, env, env.Prefix+"order", 4)
				if len(records) != 4 {
					t.Fatalf("%d records, want 4", len(records))
				}
				for n, r := range records[1:] {
					got := string(r.Value)
					if column == "headers" {
						got = ownHeaders(r)
					}
					if want := map[string]string{"payload": `{"n": "%d"}`, "headers": "n=%d"}[column]; got != fmt.Sprintf(want, n+1) {
						t.Errorf("record %d has %s %s", n+1, column, got)
					}
				}
				relay.Stop(t)
			})
		})
	}
}
