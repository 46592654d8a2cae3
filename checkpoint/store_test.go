package checkpoint

import (
	"context"
	"errors"
	"reflect"
	"sync"
	"testing"
	"time"

	"github.com/rs/zerolog"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
)

func setup(t *testing.T) (*kfake.Cluster, func(source string) *Store) {
	t.Helper()
	cluster, err := kfake.NewCluster(kfake.NumBrokers(1))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(cluster.Close)
	return cluster, func(source string) *Store {
		s, err := NewStore([]kgo.Opt{kgo.SeedBrokers(cluster.ListenAddrs()...)}, "state", source, zerolog.Nop())
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(s.Close)
		return s
	}
}

func at(end LSN) State {
	return State{Timeline: 1, Position: Position{End: end}, At: time.Unix(1, 0).UTC()}
}

func mustSave(t *testing.T, s *Store, states ...State) {
	t.Helper()
	for _, state := range states {
		if err := s.Save(t.Context(), state); err != nil {
			t.Fatal(err)
		}
	}
}

func expectLoad(t *testing.T, s *Store, want State, stored bool) {
	t.Helper()
	got, ok, err := s.Load(t.Context())
	if err != nil || ok != stored || !reflect.DeepEqual(got, want) {
		t.Fatalf("Load = %+v, %v, %v, want %+v, %v", got, ok, err, want, stored)
	}
}

func TestStoreRoundTrip(t *testing.T) {
	t.Parallel()
	_, open := setup(t)
	s := open("1/a")
	expectLoad(t, s, State{}, false)
	full := State{
		Timeline: 3, Position: Position{End: 1 << 40, Commit: 1<<40 + 9, Rows: 17}, At: time.Unix(7, 0).UTC(),
		Publication: map[string]string{"public.outbox": "16401/733"},
	}
	mustSave(t, s, at(100), full)
	expectLoad(t, s, full, true)
	expectLoad(t, open("1/a"), full, true)
	expectLoad(t, open("1/b"), State{}, false) // another source has its own record
}

func TestStoreFurthestRecordWins(t *testing.T) {
	t.Parallel()
	_, open := setup(t)
	old, next := open("1/a"), open("1/a")
	expectLoad(t, old, State{}, false)
	mustSave(t, old, at(100))
	mustSave(t, next, at(300))
	mustSave(t, old, at(200)) // a paused relay wakes up and writes the position it had
	furthest := at(300)
	furthest.Overwritten = true
	expectLoad(t, next, furthest, true)
	later := State{Timeline: 2, Position: Position{End: 250}, At: time.Unix(1, 0).UTC()}
	mustSave(t, next, later) // after a failover a smaller LSN of a later timeline is further
	expectLoad(t, next, later, true)
}

// TestStoreTwoWriters: a relay lost its stream inside the transaction that commits at 300, after a
// keepalive at 100, and stores what it has published of that transaction. Meanwhile its successor
// stores an idle advance to 200 and confirms it. Both are right.
func TestStoreTwoWriters(t *testing.T) {
	t.Parallel()
	within, advance := State{Timeline: 1, Position: Position{End: 100, Commit: 300, Rows: 1}}, at(200)
	within.At = advance.At
	for _, order := range [][2]State{{within, advance}, {advance, within}} {
		_, open := setup(t)
		a, b := open("1/a"), open("1/a")
		if _, _, err := a.Load(t.Context()); err != nil { // creates the topic
			t.Fatal(err)
		}
		mustSave(t, a, order[0])
		mustSave(t, b, order[1])
		want := State{
			Timeline: 1, Position: Position{End: 200, Commit: 300, Rows: 1}, At: advance.At, Overwritten: true,
		}
		expectLoad(t, open("1/a"), want, true)
		server := Server{Slot: "walpost", ConfirmedFlush: 200, WALEnd: 1000, Timeline: 1}
		if start, err := Resume(want, true, server); err != nil || start.Position != want.Position {
			t.Errorf("it starts at %v, %v", start.Position, err)
		}
		mustSave(t, a, want) // and what is stored again is one record
		want.Overwritten = false
		expectLoad(t, open("1/a"), want, true)
	}
}

func TestStoreResetForgets(t *testing.T) {
	t.Parallel()
	_, open := setup(t)
	s, other := open("1/a"), open("1/b")
	expectLoad(t, s, State{}, false)
	mustSave(t, s, at(500))
	mustSave(t, other, at(400))
	before, _, err := s.Load(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Reset(t.Context(), before, at(200)); err != nil {
		t.Fatal(err)
	}
	decided := at(200)
	decided.Generation = 1
	expectLoad(t, s, decided, true)
	mustSave(t, open("1/a"), at(900)) // a relay that was paused and does not know
	decided.Overwritten = true
	expectLoad(t, s, decided, true)
	expectLoad(t, open("1/a"), decided, true)
	expectLoad(t, other, at(400), true)
}

// refusal answers a produce request with an error for each of its partitions.
func refusal(req kmsg.Request, code int16) kmsg.Response {
	r := req.(*kmsg.ProduceRequest)
	resp := r.ResponseKind().(*kmsg.ProduceResponse)
	for _, t := range r.Topics {
		rt := kmsg.NewProduceResponseTopic()
		rt.Topic, rt.TopicID = t.Topic, t.TopicID
		rp := kmsg.NewProduceResponseTopicPartition()
		rp.ErrorCode = code
		rt.Partitions = append(rt.Partitions, rp)
		resp.Topics = append(resp.Topics, rt)
	}
	return resp
}

func TestSaveFailsWithItsCause(t *testing.T) {
	t.Parallel()
	cluster, open := setup(t)
	s := open("1/a")
	expectLoad(t, s, State{}, false)
	cluster.ControlKey(int16(kmsg.Produce), func(req kmsg.Request) (kmsg.Response, error, bool) {
		cluster.KeepControl()
		return refusal(req, kerr.TopicAuthorizationFailed.Code), nil, true
	})
	if err := s.Save(t.Context(), at(100)); !errors.Is(err, kerr.TopicAuthorizationFailed) {
		t.Fatalf("Save = %v, want the broker's refusal", err)
	}
}

func TestSaveReturnsWithItsContext(t *testing.T) {
	t.Parallel()
	s, err := NewStore([]kgo.Opt{kgo.SeedBrokers("127.0.0.1:1")}, "state", "1/a", zerolog.Nop())
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if err := s.Save(ctx, at(100)); !errors.Is(err, context.DeadlineExceeded) {
		t.Fatalf("Save = %v, want the deadline", err)
	}
}

// TestSaveAfterOneThatWasGivenUp: a write that nobody waits for any more must not take the next one
// with it.
func TestSaveAfterOneThatWasGivenUp(t *testing.T) {
	t.Parallel()
	cluster, open := setup(t)
	s := open("1/a")
	expectLoad(t, s, State{}, false)
	asked, release := make(chan struct{}), make(chan struct{})
	ask := sync.OnceFunc(func() { close(asked) })
	cluster.ControlKey(int16(kmsg.Produce), func(req kmsg.Request) (kmsg.Response, error, bool) {
		ask()
		cluster.SleepControl(func() { <-release })
		return refusal(req, kerr.NotLeaderForPartition.Code), nil, true // the client tries again
	})
	ctx, cancel := context.WithCancel(t.Context())
	go func() { <-asked; cancel() }()
	if err := s.Save(ctx, at(100)); !errors.Is(err, context.Canceled) {
		t.Fatalf("Save = %v, want to be given up", err)
	}
	saved := make(chan error, 1)
	go func() { saved <- s.Save(t.Context(), at(200)) }()
	time.Sleep(100 * time.Millisecond) // into the buffer, behind the first
	close(release)
	if err := <-saved; err != nil {
		t.Fatalf("the next Save = %v", err)
	}
	expectLoad(t, s, at(200), true)
}
