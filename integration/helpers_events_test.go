package integration

import (
	"context"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/walpost/walpost/integration/wait"
)

// insert commits events of one key in one transaction.
func insert(t testing.TB, env *Env, kind, key string, count int) {
	t.Helper()
	env.Exec(t, `INSERT INTO outbox (id, aggregatetype, aggregateid, type, payload)
		SELECT gen_random_uuid(), $1, $2, 'Happened', jsonb_build_object('i', i) FROM generate_series(1, $3::int) i`, kind, key, count)
}

// awaitRecords reads a topic until it has so many records, and a moment longer to see that there are no more.
func awaitRecords(t testing.TB, env *Env, topic string, count int) []*kgo.Record {
	t.Helper()
	client := env.Client(t, kgo.ConsumeTopics(topic), kgo.FetchIsolationLevel(kgo.ReadCommitted()), kgo.MetadataMinAge(100*time.Millisecond), kgo.MetadataMaxAge(300*time.Millisecond))
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
