package sink

import (
	"errors"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/rs/zerolog"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
)

func TestMissingTopicIsWaitedForAndReported(t *testing.T) {
	t.Parallel()
	var log lockedBuffer
	f := setup(t, func(c *Config) { c.CreateTopics = false; c.Log = zerolog.New(&log) })
	if err := f.send("orders", "k", "e", 1); err != nil || !f.sink.Held() {
		t.Fatalf("Produce = %v; more may be produced while the topic is missing: %t", err, !f.sink.Held())
	}
	f.waitReason(`waiting for topic "orders"`)
	if f.sink.FindTopics(t.Context()); f.sink.Stats().Reason == "" {
		t.Error("whoever asks for other topics must not end the wait for this one")
	}
	if _, err := kadm.NewClient(f.client()).CreateTopic(t.Context(), 1, 1, nil, "orders"); err != nil {
		t.Fatal(err)
	}
	<-f.room
	if err := f.flush(); err != nil || f.marks[0].done.Load() != 1 {
		t.Fatalf("Flush = %v, mark told %d times", err, f.marks[0].done.Load())
	}
	if n := strings.Count(log.String(), "topic does not exist"); n != 1 {
		t.Fatalf("the log says %d times that the topic is missing:\n%s", n, log.String())
	}
	if r := f.sink.Stats().Reason; r != "" {
		t.Fatalf("still reported: %s", r)
	}
}

// TestTopicDeleted: a topic vanishes under the client. The sink says so, or makes it again, and
// nothing of it is taken for published; then it ends as in an outage, so that another one publishes
// the events.
func TestTopicDeleted(t *testing.T) {
	t.Parallel()
	for name, create := range map[string]bool{"waited for": false, "made again": true} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var log lockedBuffer
			f := setup(t, func(c *Config) { c.Log = zerolog.New(&log).Level(zerolog.InfoLevel) })
			f.sink.resolver.create = true
			for _, topic := range []string{"orders", "idle"} {
				f.mustProduce(topic, "k", "0", 1)
			}
			f.mustFlush()
			f.sink.resolver.create = create
			admin := kadm.NewClient(f.sink.client.(*kgo.Client))
			if _, err := admin.DeleteTopics(t.Context(), "orders", "idle"); err != nil {
				t.Fatal(err)
			}
			f.mustProduce("orders", "k", "1", 1)
			f.sink.FindTopics(t.Context())
			there := func(topic string) bool { return f.sink.resolver.lookup(t.Context(), topic) == nil }
			if there("orders") {
				t.Fatal("made at once, though somebody may be about to make it")
			}
			f.sink.topics.known("orders").inFlight.moved.Store(moment(time.Now().Add(-2 * stall)))
			f.sink.FindTopics(t.Context())
			if reason := f.sink.Stats().Reason; !create && !strings.Contains(reason, `waiting for topic "orders"`) {
				t.Fatalf("events wait, because %q", reason)
			}
			if !create {
				if _, err := admin.CreateTopic(t.Context(), 1, 1, nil, "orders"); err != nil {
					t.Fatal(err)
				}
			}
			if !there("orders") || there("idle") {
				t.Fatal("want the topic whose events wait to be there, and no other")
			}
			select {
			case <-f.sink.Failed():
			case <-time.After(20 * time.Second):
				t.Fatalf("the sink does not end:\n%s", log.String())
			}
			var event *EventError
			if err := f.sink.Err(); !errors.As(err, &event) || !event.Outage {
				t.Fatalf("it ends with %v, want an outage", err)
			}
			if f.marks[2].done.Load() != 0 {
				t.Error("an event that was never confirmed counts as published")
			}
		})
	}
}

// TestFindTopicsInAnOutage: brokers that do not answer are no reason to miss a topic, and once
// nothing waits for a topic none is missed.
func TestFindTopicsInAnOutage(t *testing.T) {
	t.Parallel()
	f := setup(t, nil)
	f.mustProduce("orders", "k", "0", 1)
	f.mustFlush()
	var away, missing, waits atomic.Bool
	waits.Store(true)
	f.cluster.ControlKey(int16(kmsg.Metadata), func(req kmsg.Request) (kmsg.Response, error, bool) {
		f.cluster.KeepControl()
		switch asked := req.(*kmsg.MetadataRequest).Topics; {
		case away.Load():
			return nil, errors.New("cut"), true
		case missing.Load() && len(asked) == 1:
			return denyTopics(req, kerr.UnknownTopicOrPartition.Code), nil, true
		}
		return nil, nil, false
	})
	f.cluster.ControlKey(int16(kmsg.Produce), func(req kmsg.Request) (kmsg.Response, error, bool) {
		f.cluster.KeepControl()
		if !waits.Load() {
			return nil, nil, false
		}
		return waiting(req.(*kmsg.ProduceRequest)), nil, true
	})
	f.mustProduce("orders", "k", "1", 1)
	f.sink.resolver.create = false
	find := func() string {
		f.sink.topics.known("orders").inFlight.moved.Store(moment(time.Now().Add(-2 * stall)))
		f.sink.FindTopics(t.Context()) // gives up by itself
		return f.sink.Stats().Reason
	}
	away.Store(true)
	if find(); f.sink.resolver.missing.Load() != nil { // Stats shows the outage
		t.Errorf("in an outage it is said: %s", *f.sink.resolver.missing.Load())
	}
	away.Store(false)
	missing.Store(true)
	if reason := find(); !strings.Contains(reason, `waiting for topic "orders"`) {
		t.Errorf("events wait, because %q", reason)
	}
	missing.Store(false)
	waits.Store(false)
	f.mustFlush()
	if reason := f.sink.Stats().Reason; reason != "" {
		t.Errorf("nothing waits, and yet %q", reason)
	}
}

// TestTopicDeletedUnderALargeEvent: nothing follows an event that may be too large, so it is the
// sink itself that has to find its topic missing.
func TestTopicDeletedUnderALargeEvent(t *testing.T) {
	t.Parallel()
	f := setup(t, nil, kfake.SeedTopics(1, "orders"))
	f.mustProduce("orders", "k", "0", 1)
	f.mustFlush()
	if _, err := kadm.NewClient(f.sink.client.(*kgo.Client)).DeleteTopics(t.Context(), "orders"); err != nil {
		t.Fatal(err)
	}
	go func() { _ = f.produce("orders", "k", "1", defaultLimit-900) }()
	for deadline := time.Now().Add(30 * time.Second); f.sink.Err() == nil; time.Sleep(200 * time.Millisecond) {
		if time.Now().After(deadline) {
			err := f.sink.resolver.lookup(t.Context(), "orders")
			t.Fatalf("nobody made the topic (%v); reason %q", err, f.sink.Stats().Reason)
		}
		f.sink.topics.known("orders").inFlight.moved.Store(moment(time.Now().Add(-2 * stall)))
		f.sink.FindTopics(t.Context())
	}
}
