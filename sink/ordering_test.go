package sink

import (
	"errors"
	"fmt"
	"slices"
	"testing"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kfake"

	"github.com/walpost/walpost/checkpoint"
)

// TestProbes: from the stuck event on, the first, second, fourth, eighth and so on has a batch of
// its own.
func TestProbes(t *testing.T) {
	t.Parallel()
	o := &ordering{stuck: &EventError{Commit: 100, Index: 3}}
	var probes []int
	for i := range 3 + 1<<14 {
		if o.probe(&flight{commit: 100, index: uint32(i)}) {
			probes = append(probes, i)
		}
	}
	if want := []int{3, 4, 6, 10, 18, 34, 66}; !slices.Equal(probes[:7], want) || len(probes) != 15 {
		t.Errorf("%d events have a batch of their own: %v, want 15, at first %v", len(probes), probes, want)
	}
}

// TestSuspects: from the refused event on, events have a batch of their own, but not for ever.
func TestSuspects(t *testing.T) {
	t.Parallel()
	o := &ordering{refused: &EventError{Commit: 100, Index: 3}}
	suspects := 0
	for i := range uint32(3 * maxSuspects) {
		switch suspect := o.suspect(&flight{commit: 100, index: i}); {
		case suspect && i < 3:
			t.Errorf("event %d is before the refused one", i)
		case suspect:
			suspects++
		}
	}
	if suspects != maxSuspects {
		t.Errorf("%d suspects, want %d", suspects, maxSuspects)
	}
}

// TestStartBehindTheStuckEvent: a session that starts behind the event that was stuck has none.
func TestStartBehindTheStuckEvent(t *testing.T) {
	t.Parallel()
	for rows, stuck := range map[uint32]bool{3: true, 4: false} {
		o := &ordering{stuck: &EventError{Commit: 100, Index: 3}}
		o.start(checkpoint.Position{End: 90, Commit: 100, Rows: rows})
		if got := o.stuck != nil; got != stuck {
			t.Errorf("%d rows are published: stuck %t, want %t", rows, got, stuck)
		}
	}
}

// TestNothingFollowsAStuckEvent: one sink after the other fails with the same event. Each publishes
// what is before it, and nothing that is behind it, so that the next repeats nothing.
func TestNothingFollowsAStuckEvent(t *testing.T) {
	t.Parallel()
	for delivery, setup := range deliveries {
		t.Run(delivery, func(t *testing.T) {
			t.Parallel()
			f := setup(t, func(c *Config) { c.Stuck = &EventError{Commit: 3} }, kfake.SeedTopics(1, "bad", "good"))
			heal := f.answer("bad", kerr.CorruptMessage.Code)
			send := func(from int) error {
				f.marks = f.marks[:from-1]
				for i := from; i <= 20; i++ {
					topic := "good"
					if i == 3 {
						topic = "bad"
					}
					if err := f.produce(topic, "k", fmt.Sprint(i), 1); err != nil {
						return err
					}
				}
				return f.flush()
			}
			from := 1
			for range 3 {
				var failed *EventError
				if err := send(from); !errors.As(err, &failed) || failed.EventID != "3" || !failed.Outage {
					t.Fatalf("the error is %v", err)
				}
				f.waitDone(f.marks[:2]...)
				f.sink.Close()
				marks := f.marks
				f = f.another(func(c *Config) { c.Before, c.Stuck = f.sink, &EventError{Commit: 3} })
				f.marks = marks
				f.begin()
				from = 3
			}
			heal()
			if err := send(from); err != nil {
				t.Fatal(err)
			}
			if got := f.committed("good"); len(got) != 19 {
				t.Errorf("events %q are published, want 19, each once", got)
			}
		})
	}
}
