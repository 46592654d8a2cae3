package integration

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/walpost/walpost/integration/checker"
)

// produceOne writes one record within a time limit.
func produceOne(t *testing.T, client *kgo.Client, topic, value string, limit time.Duration) error {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), limit)
	defer cancel()
	// The client does not give up a record that may have been written, so the promise may come
	// later than the limit.
	done := make(chan error, 1)
	client.Produce(ctx, &kgo.Record{Topic: topic, Key: []byte("k"), Value: []byte(value)},
		func(_ *kgo.Record, err error) { done <- err })
	select {
	case err := <-done:
		return err
	case <-ctx.Done():
		return ctx.Err()
	}
}

func TestThreeBrokers(t *testing.T) {
	t.Parallel()
	env := Setup(t, Needs{Kafka: OwnThree})
	topic := env.Prefix + "order"
	env.CreateTopic(t, topic, 3, nil)
	// The default timeouts would make the client wait half a minute for the broker that is frozen.
	client := env.Client(t, kgo.ProduceRequestTimeout(2*time.Second), kgo.RequestTimeoutOverhead(time.Second))
	started := time.Now()
	must := func(what string, err error) {
		t.Helper()
		t.Logf("%s: after %s", what, time.Since(started).Round(time.Millisecond))
		if err != nil {
			t.Fatalf("%s: %v", what, err)
		}
	}
	inSync := func() {
		t.Helper()
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		must("wait", env.Kafka.WaitInSync(ctx))
	}
	inSync()
	must("three brokers", produceOne(t, client, topic, "1", 30*time.Second))
	must("stop", env.Kafka.Stop(t.Context(), 0))
	must("two brokers", produceOne(t, client, topic, "2", 30*time.Second))
	must("start", env.Kafka.Start(t.Context(), 0))
	inSync()
	env.Kafka.Kill(1)
	must("one killed", produceOne(t, client, topic, "3", 30*time.Second))
	must("start", env.Kafka.Start(t.Context(), 1))
	inSync()
	env.Kafka.Freeze(2)
	must("one frozen", produceOne(t, client, topic, "4", 60*time.Second))
	env.Kafka.Thaw(2)
	must("all again", produceOne(t, client, topic, "5", 30*time.Second))

	inSync()

	ends, err := kadm.NewClient(client).ListEndOffsets(t.Context(), topic)
	must("list offsets", err)
	sum := int64(0)
	ends.Each(func(o kadm.ListedOffset) { sum += o.Offset })
	if sum != 5 {
		t.Errorf("%d records, want 5", sum)
	}
}

func TestFakeFaults(t *testing.T) {
	env := Setup(t, Needs{Kafka: Faulty})
	topic := env.Prefix + "order"
	env.CreateTopic(t, topic, 1, nil)
	client := env.Client(t)

	env.Fake.FailProduce(t, topic, kerr.MessageTooLarge.Code, 1)
	if err := produceOne(t, client, topic, "refused", 30*time.Second); !errors.Is(err, kerr.MessageTooLarge) {
		t.Errorf("err = %v", err)
	}
	if err := produceOne(t, client, topic, "accepted", 30*time.Second); err != nil {
		t.Error(err)
	}
	if hits := env.Fake.Hits(t); hits != 1 {
		t.Errorf("%d hits", hits)
	}
	env.Fake.Heal(t)

	env.Fake.Blackhole(t)
	err := produceOne(t, client, topic, "swallowed", 300*time.Millisecond)
	if !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("err = %v", err)
	}
	if env.Fake.Hits(t) == 0 {
		t.Error("nothing was swallowed")
	}
	env.Fake.Heal(t)

	env.Fake.Kill()
	env.Fake.Start(t)
	after := env.Client(t)
	if err := produceOne(t, after, topic, "after the restart", 30*time.Second); err != nil {
		t.Error(err)
	}
	ends, err := kadm.NewClient(after).ListEndOffsets(t.Context(), topic)
	if o, ok := ends.Lookup(topic, 0); err != nil || !ok || o.Offset != 2 {
		t.Errorf("end offset %+v, %v: the records before the restart should be there", o, err)
	}
}

// publishTable stands in for the relay: it publishes what the outbox holds, in the order of the
// numbers of each aggregate.
func publishTable(t *testing.T, env *Env) {
	t.Helper()
	client := env.Client(t)
	rows, err := env.Connect(t).Query(t.Context(), `SELECT id::text, aggregatetype, aggregateid, type, payload::text, headers::text
		FROM `+env.Table+` ORDER BY (headers->>'seq')::bigint`)
	if err != nil {
		t.Fatal(err)
	}
	defer rows.Close()
	for n := 0; rows.Next(); n++ {
		var id, kind, key, event, headers string
		var payload *string
		if err := rows.Scan(&id, &kind, &key, &event, &payload, &headers); err != nil {
			t.Fatal(err)
		}
		own, err := checker.OrderedHeaders(headers)
		if err != nil {
			t.Fatal(err)
		}
		r := &kgo.Record{Topic: env.Prefix + kind, Key: []byte(key), Headers: append([]kgo.RecordHeader{
			{Key: "id", Value: []byte(id)},
			{Key: "type", Value: []byte(event)},
			{Key: "source", Value: []byte("1/" + env.Slot)},
			{Key: "pos", Value: []byte(fmt.Sprintf("00000001-%016X-00000000", n))},
		}, own...)}
		if payload != nil {
			r.Value = []byte(*payload)
		}
		client.Produce(context.Background(), r, func(_ *kgo.Record, err error) {
			if err != nil {
				t.Errorf("produce: %v", err)
			}
		})
	}
	if err := errors.Join(rows.Err(), client.Flush(t.Context())); err != nil {
		t.Fatal(err)
	}
}

// TestWorkloadAndCheck takes the relay out of the loop: what the workload wrote, published by hand,
// must satisfy the checker, and one record more or less must not.
func TestWorkloadAndCheck(t *testing.T) {
	env := Setup(t, Needs{})
	env.CreateOutbox(t)
	work := env.Workload(t, WorkloadOptions{Events: 5000})
	work.Wait(t)
	t.Logf("transactions: %s", work.Mix())
	if work.Committed() < 5000 {
		t.Errorf("%d committed", work.Committed())
	}
	truth := work.Truth(t)
	if len(truth.Events) != work.Committed() || len(truth.RolledBack) == 0 {
		t.Errorf("%d in the table, %d acknowledged, %d rolled back", len(truth.Events), work.Committed(),
			len(truth.RolledBack))
	}
	for what, count := range map[string]string{
		"tombstones":             "SELECT count(*) FROM outbox WHERE payload IS NULL",
		"large payloads":         "SELECT count(*) FROM outbox WHERE octet_length(payload::text) > 200000",
		"keys beyond ASCII":      "SELECT count(*) FROM outbox WHERE aggregateid ~ '[^ -~]'",
		"multi-row transactions": "SELECT count(*) FROM (SELECT FROM outbox GROUP BY xmin::text HAVING count(*) > 20) s",
		"gaps in the numbers": `SELECT 1 - count(*) FROM (SELECT FROM outbox GROUP BY aggregatetype, aggregateid
			HAVING count(*) <> max((headers->>'seq')::bigint)) s`,
	} {
		if got := env.Value(t, count); got == "0" || got[0] == '-' {
			t.Errorf("%s: %s", what, got)
		}
	}

	for _, kind := range work.Types() {
		env.CreateTopic(t, env.Prefix+kind, eventPartitions, nil)
	}
	publishTable(t, env)
	env.Check(t, work).Assert(t, 0)

	var ghost string
	for ghost = range truth.RolledBack {
		break
	}
	rolledBack := &kgo.Record{Topic: env.Prefix + "order", Headers: []kgo.RecordHeader{{Key: "id", Value: []byte(ghost)}}}
	if err := env.Client(t).ProduceSync(t.Context(), rolledBack).FirstErr(); err != nil {
		t.Fatal(err)
	}
	if report := env.Check(t, work); report.RolledBack.Count != 1 {
		t.Errorf("a rolled-back event went unnoticed: %s", report)
	}
}

// TestStopAwaitsCommits: a writer that is stopped in its COMMIT leaves a transaction that Postgres
// brings to its end. It must have come to it before Stop returns, or a relay that is stopped next
// seems to have lost it.
func TestStopAwaitsCommits(t *testing.T) {
	slow := map[string]string{"commit_delay": "100000", "commit_siblings": "0"} // microseconds
	env := Setup(t, Needs{Postgres: 15, OwnPostgres: true, Kafka: Faulty, Settings: slow})
	env.CreateOutbox(t)
	for i := range 5 {
		work := env.Workload(t, WorkloadOptions{NoLarge: true})
		work.WaitCommitted(t, 10)
		// The writers commit together: one of these moments is in a delay.
		time.Sleep(time.Duration(i) * 20 * time.Millisecond)
		work.Stop(t)
		stopped := env.Value(t, "SELECT count(*) FROM "+env.Table)
		time.Sleep(200 * time.Millisecond) // two delays
		if later := env.Value(t, "SELECT count(*) FROM "+env.Table); later != stopped {
			t.Errorf("%s rows after the stop, %s a moment later", stopped, later)
		}
	}
}

// TestWorkloadSurvivesKill: after a kill of Postgres in the middle, the table and the workload
// still agree.
func TestWorkloadSurvivesKill(t *testing.T) {
	env := Setup(t, Needs{Postgres: 15, OwnPostgres: true, Kafka: Faulty})
	env.CreateOutbox(t)
	work := env.Workload(t, WorkloadOptions{Outages: true, NoLarge: true})
	for round := range 2 {
		work.WaitCommitted(t, (round+1)*500)
		env.Server.Kill()
		if err := env.Server.Restart(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	work.WaitCommitted(t, work.Committed()+500)
	work.Stop(t)
	truth := work.Truth(t)
	if len(truth.Events) < work.Committed() {
		t.Errorf("%d in the table, %d acknowledged", len(truth.Events), work.Committed())
	}
	t.Logf("%d in the table, %d of them acknowledged, %d rolled back", len(truth.Events), work.Committed(),
		len(truth.RolledBack))
}
