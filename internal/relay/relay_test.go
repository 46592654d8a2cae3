package relay

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgconn"
	"github.com/rs/zerolog"
	"github.com/twmb/franz-go/pkg/kerr"
	"go.uber.org/goleak"

	"github.com/walpost/walpost/cdc"
	"github.com/walpost/walpost/checkpoint"
	"github.com/walpost/walpost/decoder"
	"github.com/walpost/walpost/sink"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func testRelay() *Relay {
	return New(Config{
		CDC:   cdc.Config{Postgres: &pgconn.Config{}, Slot: "walpost", Publication: "walpost"},
		Topic: new(sink.Template), Log: zerolog.Nop(), DrainTimeout: 50 * time.Millisecond,
	})
}

func TestHaltSaysWhatToDo(t *testing.T) {
	t.Parallel()
	r := testRelay()
	var err error
	if r.cfg.Topic, err = sink.ParseTemplate("{tenant}", nil); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		err  error
		says []string
	}{
		{errors.New("never heard of"), []string{"never heard of", "in the logs of Postgres"}},
		{&decoder.Error{EventID: "e7", Reason: "bad", CommitLSN: 0x100000010}, []string{"e7", "1/10", "pg_replication_slot_advance('walpost', '1/11')"}},
		{&decoder.Error{Column: "payload", Relation: true, Reason: "missing", CommitLSN: 0x10}, []string{"missing", "WALPOST_COLUMNS"}},
		{&decoder.Error{Column: "tenant", Relation: true, Reason: "missing", CommitLSN: 0x10}, []string{"missing", "WALPOST_TOPIC"}},
		{&kafkaError{kerr.InvalidTimestamp}, []string{"INVALID_TIMESTAMP", "The clock of this machine"}},
		{&sink.EventError{EventID: "e8", Commit: 0x100000010, Err: errors.New("bad")}, []string{"e8", "1/10", "pg_replication_slot_advance('walpost', '1/11')"}},
		{&sink.EventError{EventID: "e9", Hint: "raise the limit", Err: kerr.MessageTooLarge}, []string{"e9", "raise the limit"}},
		{&kafkaError{&checkpoint.TopicError{Topic: "state", Partitions: 3}}, []string{"3 partitions", "WALPOST_STATE_TOPIC"}},
		{&kafkaError{&checkpoint.RecordError{Topic: "state", Offset: 7, Err: errors.New("bad")}}, []string{"offset 7", "newer walpost"}},
		{&kafkaError{kerr.TopicAuthorizationFailed}, []string{"TOPIC_AUTHORIZATION_FAILED", "grant READ"}},
		{
			&kafkaError{&checkpoint.CreateError{Topic: "state", Says: "it collides", Err: kerr.InvalidTopicException}},
			[]string{"INVALID_TOPIC_EXCEPTION: it collides", "name another topic in WALPOST_STATE_TOPIC"},
		},
		{
			&kafkaError{&checkpoint.CreateError{Topic: "state", Says: "no", Err: kerr.PolicyViolation}},
			[]string{"POLICY_VIOLATION: no", "as the rules of the cluster want it"},
		},
		{&kafkaError{&checkpoint.CreateError{Topic: "state", Err: kerr.TopicAuthorizationFailed}}, []string{"grant READ"}},
		{
			&sink.EventError{EventID: "e10", Commit: 0x10, Hint: "delete the other", Err: &checkpoint.CreateError{Topic: "a_b", Says: "it collides", Err: kerr.InvalidTopicException}},
			[]string{"it collides", "delete the other. If the event itself is wrong", "pg_replication_slot_advance"},
		},
		{&cdc.StopError{What: "gone", Hint: "bring it back"}, []string{"gone", "bring it back"}},
	} {
		h := r.halt(classify(fmt.Errorf("session: %w", c.err)), "7")
		for _, text := range c.says {
			if !strings.Contains(h.Error()+" "+h.Hint, text) {
				t.Errorf("%T does not say %q: %s; %s", c.err, text, h, h.Hint)
			}
		}
		if h.Gap {
			t.Errorf("%v is a gap", c.err)
		}
	}
}

// TestHaltAtAGap: where the stream or a topic lacks events, nobody says that nothing is lost.
func TestHaltAtAGap(t *testing.T) {
	t.Parallel()
	r := testRelay()
	for _, c := range []struct {
		err  error
		says string
	}{
		{&checkpoint.GapError{Slot: "walpost", Stored: 0x10, Confirmed: 0x20}, "init --accept-gap"},
		{&checkpoint.RestoredError{Stored: 0x30, WALEnd: 0x20}, "init --accept-gap"},
		{(cdc.View{Timeline: 1}).Check(cdc.Config{Slot: "walpost"}), "does not exist"},
		{&sink.EventError{EventID: "e9", Reason: "data_loss", Hint: "look for it", Err: kerr.OutOfOrderSequenceNumber}, "look for it"},
	} {
		if h := r.halt(classify(c.err), "7"); !h.Gap || !strings.Contains(h.Error()+" "+h.Hint, c.says) {
			t.Errorf("%v: %+v, want a gap", c.err, h)
		}
	}
}

func TestPingStorm(t *testing.T) {
	t.Parallel()
	var p pings
	now := time.Now()
	for i := range 10 * stormPings { // a server that asks often while its WAL moves
		if p.storm(cdc.LSN(i), now) {
			t.Fatal("a storm although the WAL moves")
		}
	}
	for range 10 * stormPings { // one that asks about the same position now and then
		now = now.Add(stormTime / 10)
		if p.storm(7, now) {
			t.Fatal("a storm of five pings a second")
		}
	}
	now = now.Add(time.Hour)
	storms := 0
	for range 10 * stormPings {
		now = now.Add(time.Millisecond)
		if p.storm(8, now) {
			storms++
		}
	}
	if storms != 1 || !p.stormy.Load() {
		t.Fatalf("%d storms noticed, stormy %t; want one", storms, p.stormy.Load())
	}
	p.storm(9, now)
	if p.stormy.Load() {
		t.Fatal("still stormy though the WAL moved")
	}
}

// TestDrainContext checks who may wait for how long at the end of a session.
func TestDrainContext(t *testing.T) {
	t.Parallel()
	r := testRelay()
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()

	limited, done := r.drainContext(ctx, false)
	defer done()
	<-limited.Done() // ends although nobody stopped the relay

	patient, donePatient := r.drainContext(ctx, true)
	defer donePatient()
	select {
	case <-patient.Done():
		t.Fatal("an outage is waited for only so long")
	case <-time.After(3 * r.cfg.DrainTimeout):
	}
	cancel()
	<-patient.Done() // the drain timeout later
}

func TestWantsBinary(t *testing.T) {
	t.Parallel()
	template, err := sink.ParseTemplate("{aggregatetype}", nil)
	if err != nil {
		t.Fatal(err)
	}
	view := func(payload, kind uint32) cdc.View {
		return cdc.View{Tables: []cdc.TableView{{Columns: []cdc.ColumnView{
			{Name: "id", Type: 2950}, {Name: "aggregatetype", Type: kind}, {Name: "aggregateid", Type: 25}, {Name: "body", Type: payload}, {Name: "created_at", Type: 1184},
		}}}}
	}
	r := testRelay()
	r.cfg.Topic, r.cfg.Columns = template, map[string]string{"payload": "body"}
	r.cfg.CDC.Columns = EventColumns(r.cfg.Columns, template.Extra())
	for _, c := range []struct {
		payload, kind uint32
		want          bool
	}{{17, 25, true}, {3802, 25, false}, {17, 50000, false}} {
		if got := r.newSession(newHandover()).wantsBinary(view(c.payload, c.kind)); got != c.want {
			t.Errorf("payload %d, aggregatetype %d: binary %t, want %t", c.payload, c.kind, got, c.want)
		}
	}
}

// TestPauseEndsForEvents guards the moment between the keeper's reading of the position and its
// pause for an idle advance: an event that is confirmed then must not wait for ten seconds.
func TestPauseEndsForEvents(t *testing.T) {
	t.Parallel()
	s := &session{watermark: checkpoint.NewWatermark(checkpoint.Position{End: 100}, 1<<20, make(chan struct{}, 1)), storeNow: make(chan struct{}, 1)}
	s.watermark.Idle(110)
	_, passed, _ := s.watermark.Position()
	s.watermark.Begin(120, time.Now())
	s.watermark.Add(0, 1).Done()
	s.watermark.Commit(130)
	start := time.Now()
	if !s.pause(t.Context(), start, passed, true) || time.Since(start) > idleEvery/2 {
		t.Fatalf("paused for %s", time.Since(start))
	}
}

// TestWaitsUntilThereIsRoom has the first wait return on a word from before, while a record is
// held.
func TestWaitsUntilThereIsRoom(t *testing.T) {
	t.Parallel()
	held, waits := true, 0
	err := untilRoom(func() bool { return held }, func() error {
		waits++
		held = waits < 2
		return nil
	})
	if err != nil || held || waits != 2 {
		t.Fatalf("went on after %d waits, held %t, %v", waits, held, err)
	}
	stop := errors.New("stop")
	if err := untilRoom(func() bool { return true }, func() error { return stop }); !errors.Is(err, stop) {
		t.Fatalf("the end of a wait is %v", err)
	}
}
