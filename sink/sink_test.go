package sink

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/rs/zerolog"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
	"go.uber.org/goleak"

	"github.com/walpost/walpost/checkpoint"
	"github.com/walpost/walpost/decoder"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

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
		Client: []kgo.Opt{kgo.SeedBrokers(c.ListenAddrs()...)}, Topic: template, Source: "7/walpost", StateTopic: "state",
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
	m := &mark{}
	f.marks = append(f.marks, m)
	e := &decoder.Event{ID: []byte(id), Key: []byte(key), AggregateType: []byte(topic), Payload: []byte(strings.Repeat("x", size))}
	if err := f.sink.Produce(e, Transaction{Timeline: 1, Commit: uint64(len(f.marks))}, m, f.position(len(f.marks))); err != nil {
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

// position is how far the stream is with the n-th event.
func (f *fixture) position(n int) checkpoint.Position {
	return checkpoint.Position{End: 1, Commit: checkpoint.LSN(n), Rows: 1}
}

func (f *fixture) flush() error {
	ctx, cancel := context.WithTimeout(f.t.Context(), 30*time.Second)
	defer cancel()
	return f.sink.Flush(ctx)
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
	client, err := kgo.NewClient(kgo.SeedBrokers(f.cluster.ListenAddrs()...), kgo.ConsumeTopics(topic), kgo.KeepControlRecords())
	if err != nil {
		f.t.Fatal(err)
	}
	defer client.Close()
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

func TestProduceInOrderPerKey(t *testing.T) {
	t.Parallel()
	f := setup(t, nil, kfake.DefaultNumPartitions(3))
	want := map[string][]string{}
	for i := range 3000 {
		key := fmt.Sprint("k", i%17)
		want[key] = append(want[key], fmt.Sprint(i))
		if err := f.produce("orders", key, fmt.Sprint(i), 100); err != nil {
			t.Fatal(err)
		}
	}
	if err := f.flush(); err != nil {
		t.Fatal(err)
	}
	got, partition := map[string][]string{}, map[string]int32{}
	for _, r := range f.records("orders") {
		key := string(r.Key)
		if p, ok := partition[key]; ok && p != r.Partition {
			t.Fatalf("key %s is in partitions %d and %d", key, p, r.Partition)
		}
		partition[key] = r.Partition
		got[key] = append(got[key], string(r.Headers[0].Value))
	}
	for key := range want {
		if !slices.Equal(got[key], want[key]) {
			t.Fatalf("key %s: got %d events, in another order or other ones than the %d produced", key, len(got[key]), len(want[key]))
		}
	}
	for i, m := range f.marks {
		if n := m.done.Load(); n != 1 {
			t.Fatalf("mark %d was told %d times", i, n)
		}
	}
	if st := f.sink.Stats(); st.Events != 0 || st.Bytes != 0 || st.Published["orders"] != 3000 || !st.Up {
		t.Fatalf("stats are %+v", st)
	}
}

// refuse makes the cluster refuse every batch that holds the given text, and leave the partition as it is. The others of
// its request will be sent again.
func (f *fixture) refuse(text string, code int16) {
	f.cluster.ControlKey(int16(kmsg.Produce), func(req kmsg.Request) (kmsg.Response, error, bool) {
		f.cluster.KeepControl()
		r := req.(*kmsg.ProduceRequest)
		if !holds(r, text) {
			return nil, nil, false
		}
		return refusal(r, func(p *kmsg.ProduceResponseTopicPartition, records string) {
			p.ErrorCode = kerr.NotEnoughReplicas.Code
			if strings.Contains(records, text) {
				p.ErrorCode = code
			}
		}), nil, true
	})
}

// holds reports whether a produce request has a record with a text.
func holds(r *kmsg.ProduceRequest, text string) bool {
	for _, topic := range r.Topics {
		for _, p := range topic.Partitions {
			if strings.Contains(string(p.Records), text) {
				return true
			}
		}
	}
	return false
}

// refusal answers a produce request with what fill says of each partition and its records.
func refusal(r *kmsg.ProduceRequest, fill func(p *kmsg.ProduceResponseTopicPartition, records string)) kmsg.Response {
	resp := r.ResponseKind().(*kmsg.ProduceResponse)
	for _, topic := range r.Topics {
		answer := kmsg.NewProduceResponseTopic()
		answer.Topic, answer.TopicID = topic.Topic, topic.TopicID
		for _, asked := range topic.Partitions {
			p := kmsg.NewProduceResponseTopicPartition()
			p.Partition = asked.Partition
			fill(&p, string(asked.Records))
			answer.Partitions = append(answer.Partitions, p)
		}
		resp.Topics = append(resp.Topics, answer)
	}
	return resp
}

// TestNothingPassesARefusedEvent produces on after the brokers have refused an event and before its promise has run:
// nothing of it may reach the partition.
func TestNothingPassesARefusedEvent(t *testing.T) {
	t.Parallel()
	f := setup(t, nil)
	f.refuse("event-500-", kerr.PolicyViolation.Code)
	failed, produced := make(chan struct{}), make(chan struct{})
	promise, first := f.sink.promise, sync.Once{}
	f.sink.promise = func(r *flight, err error) {
		if err != nil {
			first.Do(func() { close(failed) })
			<-produced
		}
		promise(r, err)
	}
	for i := range 501 {
		if err := f.produce("orders", "k", fmt.Sprintf("event-%d-", i), 20); err != nil {
			t.Fatal(err)
		}
	}
	<-failed
	for i := range 100 {
		if err := f.produce("orders", "k", fmt.Sprintf("event-%d-", 501+i), 20); err != nil {
			t.Fatal(err)
		}
	}
	// Without the gate these are on the partition now: nothing else holds them back.
	ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
	defer cancel()
	_ = f.sink.client.Flush(ctx)
	close(produced)
	var refused *EventError
	if err := f.flush(); !errors.As(err, &refused) || !errors.Is(err, kerr.PolicyViolation) || refused.Topic != "orders" || refused.Reason != "refused" {
		t.Fatalf("Flush = %v, want the refusal", err)
	}
	if err := f.produce("orders", "k", "later", 20); !errors.As(err, &refused) {
		t.Fatalf("Produce = %v, want the refusal", err)
	}
	got := f.ids("orders")[0]
	for i, id := range got {
		if want := fmt.Sprintf("event-%d-", i); id != want || i >= 500 {
			t.Fatalf("record %d is %s: an event was published past the refused one", i, id)
		}
	}
	for i, m := range f.marks {
		if m.done.Load() != 0 && i >= len(got) {
			t.Fatalf("event %d is marked as done and was not published", i)
		}
	}
}

// TestTheGateShutsBeforeThePromise guards what the gate relies on: that the client logs a failed batch before its
// promises run. If a new version of the client says it in other words, this is where to look.
func TestTheGateShutsBeforeThePromise(t *testing.T) {
	t.Parallel()
	f := setup(t, nil)
	f.refuse("bad", kerr.InvalidRecord.Code)
	shut := make(chan bool, 1)
	promise := f.sink.promise
	f.sink.promise = func(r *flight, err error) {
		if err != nil {
			select {
			case <-f.sink.gate.shut:
				shut <- true
			default:
				shut <- false
			}
		}
		promise(r, err)
	}
	if err := f.produce("orders", "k", "bad", 1); err != nil {
		t.Fatal(err)
	}
	if !<-shut {
		t.Fatalf("the client did not log %q before it ran the promise", batchFailed)
	}
}

func TestTooLargeForItsTopic(t *testing.T) {
	t.Parallel()
	limit := "20000"
	f := setup(t, nil, kfake.SeedTopics(1, "orders"))
	client, err := kgo.NewClient(kgo.SeedBrokers(f.cluster.ListenAddrs()...))
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	alter := kmsg.NewPtrIncrementalAlterConfigsRequest()
	resource := kmsg.NewIncrementalAlterConfigsRequestResource()
	resource.ResourceType, resource.ResourceName = kmsg.ConfigResourceTypeTopic, "orders"
	config := kmsg.NewIncrementalAlterConfigsRequestResourceConfig()
	config.Name, config.Value = "max.message.bytes", &limit
	resource.Configs = append(resource.Configs, config)
	alter.Resources = append(alter.Resources, resource)
	if _, err := alter.RequestWith(t.Context(), client); err != nil {
		t.Fatal(err)
	}
	for i := range 100 { // small ones fill batches, which must respect the topic's limit
		if err := f.produce("orders", "k", fmt.Sprint(i), 1000); err != nil {
			t.Fatal(err)
		}
	}
	if err := f.produce("orders", "k", "large", 30_000); err == nil {
		err = f.produce("orders", "k", "after", 10)
		if !errors.Is(err, kerr.MessageTooLarge) {
			t.Fatalf("the event after one that is too large: %v", err)
		}
	} else if !errors.Is(err, kerr.MessageTooLarge) {
		t.Fatal(err)
	}
	if err := f.flush(); !errors.Is(err, kerr.MessageTooLarge) {
		t.Fatalf("Flush = %v", err)
	}
	if got := f.ids("orders")[0]; len(got) != 100 || got[99] != "99" {
		t.Fatalf("published are %v, want the 100 before it", got)
	}
	var refused *EventError
	if err := f.sink.Err(); !errors.As(err, &refused) || refused.EventID != "large" || refused.Commit != 101 || refused.Reason != "too_large" {
		t.Fatalf("the error is %+v", f.sink.Err())
	}
}

func TestEventsThatBreakTheContract(t *testing.T) {
	t.Parallel()
	for name, e := range map[string]*decoder.Event{
		"illegal topic": {ID: []byte("e"), Key: []byte("k"), AggregateType: []byte("no topic")},
		"state topic":   {ID: []byte("e"), Key: []byte("k"), AggregateType: []byte("state")},
		"bad headers":   {ID: []byte("e"), Key: []byte("k"), AggregateType: []byte("orders"), Headers: []byte(`{"a":1}`)},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			f := setup(t, nil)
			var refused *EventError
			err := f.sink.Produce(e, Transaction{Commit: 0x100000002}, &mark{}, checkpoint.Position{})
			if !errors.As(err, &refused) || refused.EventID != "e" || !strings.Contains(err.Error(), "1/2") {
				t.Fatalf("Produce = %v", err)
			}
			if err := f.produce("orders", "k", "next", 1); err == nil {
				t.Fatal("the next event was taken")
			}
		})
	}
}

func TestMissingTopicIsWaitedForAndReported(t *testing.T) {
	t.Parallel()
	var log lockedBuffer
	f := setup(t, func(c *Config) { c.CreateTopics = false; c.Log = zerolog.New(&log) })
	m := &mark{}
	e := &decoder.Event{ID: []byte("e"), Key: []byte("k"), AggregateType: []byte("orders")}
	if err := f.sink.Produce(e, Transaction{}, m, checkpoint.Position{}); err != nil {
		t.Fatal(err)
	}
	if !f.sink.Held() {
		t.Fatal("more may be produced while the topic is missing")
	}
	deadline := time.Now().Add(30 * time.Second)
	for !strings.Contains(f.sink.Stats().Reason, `"orders"`) {
		if time.Now().After(deadline) {
			t.Fatalf("the missing topic is not reported: %+v", f.sink.Stats())
		}
		time.Sleep(5 * time.Millisecond)
	}
	client, err := kgo.NewClient(kgo.SeedBrokers(f.cluster.ListenAddrs()...))
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	create := kmsg.NewPtrCreateTopicsRequest()
	topic := kmsg.NewCreateTopicsRequestTopic()
	topic.Topic, topic.NumPartitions, topic.ReplicationFactor = "orders", 1, 1
	create.Topics = append(create.Topics, topic)
	if _, err := create.RequestWith(t.Context(), client); err != nil {
		t.Fatal(err)
	}
	<-f.room
	if err := f.flush(); err != nil || m.done.Load() != 1 {
		t.Fatalf("Flush = %v, mark told %d times", err, m.done.Load())
	}
	if n := strings.Count(log.String(), "topic does not exist"); n != 1 {
		t.Fatalf("the log says %d times that the topic is missing:\n%s", n, log.String())
	}
	if r := f.sink.Stats().Reason; r != "" {
		t.Fatalf("still reported: %s", r)
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
