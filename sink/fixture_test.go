package sink

import (
	"context"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/rs/zerolog"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/walpost/walpost/checkpoint"
	"github.com/walpost/walpost/decoder"
)

type fixture struct {
	t       *testing.T
	cluster *kfake.Cluster
	sink    *Sink
	room    chan struct{}
	marks   []*mark
}

type mark struct{ done atomic.Int32 }

func (m *mark) Done() { m.done.Add(1) }

func setup(t *testing.T, change func(*Config), cluster ...kfake.Opt) *fixture {
	t.Helper()
	c, err := kfake.NewCluster(append([]kfake.Opt{kfake.NumBrokers(1), kfake.DefaultNumPartitions(1)}, cluster...)...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	template, err := ParseTemplate("{aggregatetype}", nil)
	if err != nil {
		t.Fatal(err)
	}
	room := make(chan struct{}, 1)
	cfg := Config{
		Client: []kgo.Opt{kgo.SeedBrokers(c.ListenAddrs()...)},
		Topic:  template, Source: "7/walpost", StateTopic: "state",
		Room: room, Log: zerolog.Nop(), Health: NewHealth(zerolog.Nop()), CreateTopics: true,
	}
	if change != nil {
		change(&cfg)
	}
	s, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Close)
	return &fixture{t: t, cluster: c, sink: s, room: room}
}

// produce produces an event as the relay does: it waits for room after each.
func (f *fixture) produce(topic, key, id string, size int) error {
	f.t.Helper()
	if err := f.send(topic, key, id, size); err != nil {
		return err
	}
	for f.sink.Held() {
		select {
		case <-f.room:
		case <-f.t.Context().Done():
			return f.t.Context().Err()
		}
	}
	return nil
}

// send produces an event, and does not wait for room.
func (f *fixture) send(topic, key, id string, size int) error {
	m := &mark{}
	f.marks = append(f.marks, m)
	e := &decoder.Event{
		ID: []byte(id), Key: []byte(key), AggregateType: []byte(topic), Payload: []byte(strings.Repeat("x", size)),
	}
	n := len(f.marks)
	return f.sink.Produce(e, Transaction{Timeline: 1, Commit: uint64(n)}, m, f.position(n))
}

func (f *fixture) mustProduce(topic, key, id string, size int) {
	f.t.Helper()
	if err := f.produce(topic, key, id, size); err != nil {
		f.t.Fatal(err)
	}
}

// position is how far the stream is with the n-th event.
func (f *fixture) position(n int) checkpoint.Position {
	return checkpoint.Position{End: 1, Commit: checkpoint.LSN(n), Rows: 1}
}

func (f *fixture) flush() error {
	ctx, cancel := context.WithTimeout(f.t.Context(), 30*time.Second)
	defer cancel()
	return f.sink.Flush(ctx)
}

func (f *fixture) mustFlush() {
	f.t.Helper()
	if err := f.flush(); err != nil {
		f.t.Fatal(err)
	}
}

// client returns a Kafka client of the test's own.
func (f *fixture) client(opts ...kgo.Opt) *kgo.Client {
	f.t.Helper()
	client, err := kgo.NewClient(append(opts, kgo.SeedBrokers(f.cluster.ListenAddrs()...))...)
	if err != nil {
		f.t.Fatal(err)
	}
	f.t.Cleanup(client.Close)
	return client
}

// ids reads a topic to its end and returns the ids of its records per partition, in order.
func (f *fixture) ids(topic string) map[int32][]string {
	f.t.Helper()
	got := map[int32][]string{}
	for _, r := range f.records(topic) {
		got[r.Partition] = append(got[r.Partition], string(r.Headers[0].Value))
	}
	return got
}

func (f *fixture) records(topic string) []*kgo.Record {
	f.t.Helper()
	// Markers of transactions take an offset as well.
	client := f.client(kgo.ConsumeTopics(topic), kgo.KeepControlRecords())
	ends, err := kadm.NewClient(client).ListEndOffsets(f.t.Context(), topic)
	if err != nil || ends.Error() != nil {
		f.t.Fatal(err, ends.Error())
	}
	missing := int64(0)
	ends.Each(func(o kadm.ListedOffset) { missing += o.Offset })
	var records []*kgo.Record
	for int64(len(records)) < missing {
		fetches := client.PollFetches(f.t.Context())
		if err := fetches.Err(); err != nil {
			f.t.Fatal(err)
		}
		records = append(records, fetches.Records()...)
	}
	return slices.DeleteFunc(records, func(r *kgo.Record) bool { return r.Attrs.IsControl() })
}

// deliveries are the two ways to make a sink.
var deliveries = map[string]func(*testing.T, func(*Config), ...kfake.Opt) *fixture{
	"at least once": setup, "exactly once": exactly,
}

// exactly makes a sink with exactly-once delivery that has begun.
func exactly(t *testing.T, change func(*Config), cluster ...kfake.Opt) *fixture {
	t.Helper()
	f := setup(t, func(c *Config) {
		c.Exactly = &Exactly{ID: "walpost/7/walpost", Interval: 50 * time.Millisecond, Bytes: 1 << 20}
		if change != nil {
			change(c)
		}
	}, append(cluster, kfake.SeedTopics(1, "orders", "other", "state"))...)
	f.begin()
	return f
}

// another returns the fixture of another sink with the same settings, but for a change.
func (f *fixture) another(change func(*Config)) *fixture {
	f.t.Helper()
	cfg := f.sink.cfg
	change(&cfg)
	s, err := New(cfg)
	if err != nil {
		f.t.Fatal(err)
	}
	f.t.Cleanup(s.Close)
	return &fixture{t: f.t, cluster: f.cluster, sink: s, room: f.room}
}

func (f *fixture) begin() {
	f.t.Helper()
	if err := f.sink.Begin(f.t.Context()); err != nil {
		f.t.Fatal(err)
	}
	encode := func(p checkpoint.Position) ([]byte, error) { return []byte(p.String()), nil }
	f.sink.Start(checkpoint.Position{End: 1}, encode)
}

// committed reads what consumers of committed records see, as text.
func (f *fixture) committed(topic string) []string {
	f.t.Helper()
	client := f.client(kgo.ConsumeTopics(topic), kgo.FetchIsolationLevel(kgo.ReadCommitted()), kgo.KeepControlRecords())
	ends, err := kadm.NewClient(client).ListCommittedOffsets(f.t.Context(), topic)
	if err != nil || ends.Error() != nil {
		f.t.Fatal(err, ends.Error())
	}
	end, _ := ends.Lookup(topic, 0)
	var texts []string
	for next := int64(0); next < end.Offset; {
		fetches := client.PollFetches(f.t.Context())
		if err := fetches.Err(); err != nil {
			f.t.Fatal(err)
		}
		for _, r := range fetches.Records() {
			next = r.Offset + 1
			if r.Attrs.IsControl() || next > end.Offset {
				continue
			}
			text := string(r.Value)
			if topic != "state" {
				text = string(r.Headers[0].Value)
			}
			texts = append(texts, text)
		}
	}
	return texts
}

// waitDone waits until events are published.
func (f *fixture) waitDone(marks ...*mark) {
	f.t.Helper()
	deadline := time.Now().Add(30 * time.Second)
	for _, m := range marks {
		for m.done.Load() == 0 {
			if time.Now().After(deadline) {
				f.t.Fatal("an event is not published")
			}
			time.Sleep(time.Millisecond)
		}
	}
}

func (f *fixture) waitReason(want string) {
	f.t.Helper()
	deadline := time.Now().Add(30 * time.Second)
	for {
		got := f.sink.Stats().Reason
		if strings.Contains(got, want) {
			return
		}
		if time.Now().After(deadline) {
			f.t.Fatalf("the reason is %q, want %q", got, want)
		}
		time.Sleep(time.Millisecond)
	}
}

type lockedBuffer struct {
	mu sync.Mutex
	b  strings.Builder
}

func (l *lockedBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *lockedBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}
