package integration

import (
	"context"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/walpost/walpost/integration/wait"
)

// numbered inserts the events of one key with the numbers from first to last, which the checker
// compares with the order in Kafka.
const numbered = `INSERT INTO outbox (id, aggregatetype, aggregateid, type, payload, headers)
	SELECT gen_random_uuid(), 'other', '%s', 'Happened', jsonb_build_object('i', i), jsonb_build_object('seq', i::text) FROM generate_series(%d, %d) i`

// insert commits events of one key in one transaction.
func insert(t testing.TB, env *Env, kind, key string, count int) {
	t.Helper()
	env.Exec(t, `INSERT INTO outbox (id, aggregatetype, aggregateid, type, payload)
		SELECT gen_random_uuid(), $1, $2, 'Happened', jsonb_build_object('i', i) FROM generate_series(1, $3::int) i`, kind, key, count)
}

// awaitRecords reads a topic until it has so many records, and a moment longer to see that there
// are no more.
func awaitRecords(t testing.TB, env *Env, topic string, count int) []*kgo.Record {
	t.Helper()
	client := env.Client(t, kgo.ConsumeTopics(topic), kgo.FetchIsolationLevel(kgo.ReadCommitted()),
		kgo.MetadataMinAge(100*time.Millisecond), kgo.MetadataMaxAge(300*time.Millisecond))
	var records []*kgo.Record
	deadline := wait.In(time.Minute)
	for {
		ctx, cancel := context.WithTimeout(t.Context(), 500*time.Millisecond)
		fetches := client.PollFetches(ctx)
		cancel()
		if fetches.NumRecords() == 0 && (len(records) >= count || deadline.Over()) {
			break
		}
		records = append(records, fetches.Records()...)
	}
	if len(records) < count {
		t.Fatalf("%d records in topic %s after %s, want %d", len(records), topic, deadline, count)
	}
	return records
}

// insertReturning runs an INSERT that returns the id of its row.
func insertReturning(t testing.TB, env *Env, sql string) string {
	t.Helper()
	var id string
	if err := env.Connect(t).QueryRow(t.Context(), strings.Replace(sql, "RETURNING id", "RETURNING id::text", 1)).Scan(&id); err != nil {
		t.Fatal(err)
	}
	return id
}

// runScript runs a script as psql does: all statements over the simple protocol.
func runScript(t testing.TB, env *Env, script string) {
	t.Helper()
	conn := env.Connect(t)
	if _, err := conn.PgConn().Exec(t.Context(), script).ReadAll(); err != nil {
		t.Fatal(err)
	}
}

// everything has the truth read from several tables: the outbox, and what was moved out of it.
func everything(t testing.TB, env *Env, tables ...string) {
	t.Helper()
	var parts []string
	for _, table := range tables {
		parts = append(parts, "SELECT id::text, aggregatetype, aggregateid::text, type::text, payload::text, headers::text FROM "+table)
	}
	env.Exec(t, "CREATE VIEW everything AS "+strings.Join(parts, " UNION ALL "))
	env.Table = "everything"
}
