package sink

import (
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/rs/zerolog"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"
)

// TestTopicDeleted: a topic vanishes under the client. The sink says so, or makes it again, and nothing of it is taken for
// published; then it ends as in an outage, so that another one publishes the events.
func TestTopicDeleted(t *testing.T) {
	t.Parallel()
	for name, create := range map[string]bool{"waited for": false, "made again": true} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var log lockedBuffer
			f := setup(t, func(c *Config) { c.Log = zerolog.New(&log).Level(zerolog.InfoLevel) })
			f.sink.cfg.CreateTopics = true
			for _, topic := range []string{"orders", "idle"} {
				if err := f.produce(topic, "k", "0", 1); err != nil {
					t.Fatal(err)
				}
			}
			if err := f.flush(); err != nil {
				t.Fatal(err)
			}
			f.sink.cfg.CreateTopics = create
			admin := kadm.NewClient(f.sink.client.(*kgo.Client))
			if _, err := admin.DeleteTopics(t.Context(), "orders", "idle"); err != nil {
				t.Fatal(err)
			}
			if err := f.produce("orders", "k", "1", 1); err != nil {
				t.Fatal(err)
			}
			f.sink.FindTopics(t.Context())
			there := func(topic string) bool { return f.sink.lookup(t.Context(), topic) == nil }
			if there("orders") {
				t.Fatal("made at once, though somebody may be about to make it")
			}
			f.sink.topics.known("orders").moved.Store(time.Now().Add(-2 * stall).UnixMicro())
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
