package relay

import (
	"context"
	"errors"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/walpost/walpost/cdc"
	"github.com/walpost/walpost/checkpoint"
)

// TestStopWithoutAStoredPosition: events are published and their position cannot be stored, for an
// error that is waited for. A stop is not a clean one then, whether it comes within a session or
// between two.
func TestStopWithoutAStoredPosition(t *testing.T) {
	t.Parallel()
	for name, pause := range map[string]time.Duration{"at once": 0, "between two sessions": 2 * time.Second} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			f := setup(t)
			failing := f.refuses(always(kerr.SaslAuthenticationFailed.Code), "end_lsn")
			ctx, stop := context.WithCancel(t.Context())
			defer stop()
			ended := make(chan error, 1)
			go func() { ended <- f.relay.Run(ctx) }()
			f.await("a stream", func() bool { return f.relay.Status().State == Streaming })
			f.exec("INSERT INTO outbox VALUES (1, 't', 'k', 'x')")
			f.await("an event", func() bool { return f.relay.Status().Sink.Published["t"] == 1 })
			f.await("its position", func() bool { st := f.relay.Status(); return st.Stored == st.Received })
			failing.Store(true)
			f.exec("INSERT INTO outbox VALUES (2, 't', 'k', 'x')")
			f.await("an event", func() bool { return f.relay.Status().Sink.Published["t"] == 2 })
			time.Sleep(pause) // into the attempts that follow the failure
			stop()
			if err := <-ended; !errors.Is(err, ErrDrain) || !strings.Contains(err.Error(), "not stored") {
				t.Errorf("Run = %v, want to hear that the position is not stored", err)
			}
		})
	}
}

// TestStopBehindAnIdleAdvance: the position that cannot be stored moved without an event. A start
// repeats nothing, so it is a clean stop.
func TestStopBehindAnIdleAdvance(t *testing.T) {
	t.Parallel()
	f := setup(t)
	failing := f.refuses(always(kerr.NotEnoughReplicas.Code), "end_lsn")
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	ended := make(chan error, 1)
	go func() { ended <- f.relay.Run(ctx) }()
	f.exec("INSERT INTO outbox VALUES (1, 't', 'k', 'x')")
	f.await("an event", func() bool { return f.relay.Status().Sink.Published["t"] == 1 })
	f.await("its position", func() bool { st := f.relay.Status(); return st.Stored == st.Received })
	failing.Store(true)
	f.exec("CREATE TABLE other (a int)")
	f.await("an idle advance", func() bool { st := f.relay.Status(); return st.Stored < st.Received })
	stop()
	if err := <-ended; err != nil {
		t.Errorf("Run = %v, though no event lies behind the stored position", err)
	}
}

func always(code int16) func() int16 { return func() int16 { return code } }

// refuses has the brokers answer all requests with one of some texts with a code while the switch
// is on. A position has the text end_lsn.
func (f *fixture) refuses(code func() int16, texts ...string) (on *atomic.Bool) {
	on = &atomic.Bool{}
	f.broker.ControlKey(int16(kmsg.Produce), func(req kmsg.Request) (kmsg.Response, error, bool) {
		f.broker.KeepControl()
		r := req.(*kmsg.ProduceRequest)
		if !on.Load() || !slices.ContainsFunc(texts, func(text string) bool { return holds(r, text) }) {
			return nil, nil, false
		}
		answer := code()
		return refuse(r, func(string) int16 { return answer }), nil, true
	})
	return on
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

// refuse answers a produce request with an error for each partition, by the records for it.
func refuse(r *kmsg.ProduceRequest, code func(records string) int16) kmsg.Response {
	resp := r.ResponseKind().(*kmsg.ProduceResponse)
	for _, topic := range r.Topics {
		rt := kmsg.NewProduceResponseTopic()
		rt.Topic, rt.TopicID = topic.Topic, topic.TopicID
		for _, p := range topic.Partitions {
			rp := kmsg.NewProduceResponseTopicPartition()
			rp.Partition, rp.ErrorCode = p.Partition, code(string(p.Records))
			rt.Partitions = append(rt.Partitions, rp)
		}
		resp.Topics = append(resp.Topics, rt)
	}
	return resp
}

// TestLastPositionBehindTheDrain: the drain took all of its time. What was published in it is not
// sent again.
func TestLastPositionBehindTheDrain(t *testing.T) {
	t.Parallel()
	f := setup(t)
	s := f.resume()
	f.exec("INSERT INTO outbox VALUES (1, 't', 'k', 'x')")
	end := f.inspect().WALEnd
	s.watermark.Idle(end)
	drain, cancel := context.WithCancel(t.Context())
	cancel()
	if s.storeLast(drain, true); s.lastStored.End != end {
		t.Errorf("%s is known to be stored, want %s", s.lastStored.End, end)
	}
}

// TestRepeatsReachTheFurthest: events are pending behind a position. A later failure to store one
// before it does not end that.
func TestRepeatsReachTheFurthest(t *testing.T) {
	t.Parallel()
	at := func(end checkpoint.LSN) checkpoint.State {
		return checkpoint.State{Position: checkpoint.Position{End: end}, Timeline: 1}
	}
	var h handover
	h.mayRepeat(errors.New("first"), at(30))
	h.mayRepeat(errors.New("second"), at(20))
	if h.noteStored(at(20)); h.pending == nil {
		t.Error("with a position between them stored, nothing is pending")
	}
	if h.noteStored(at(30)); h.pending != nil {
		t.Error("with the furthest stored, events are pending")
	}
}

// TestStoredAfterAll: a position could not be stored in time, and was all the same, or by another
// relay. A start sends nothing again.
func TestStoredAfterAll(t *testing.T) {
	t.Parallel()
	f := setup(t)
	f.connect()
	h := f.left()
	h.mayRepeat(errors.New("no answer"), checkpoint.State{Position: checkpoint.Position{End: 100}, Timeline: 1})
	if !h.repeats(t.Context()) {
		t.Error("nothing is stored, and nothing would be sent again")
	}
	f.store(100)
	if h.repeats(t.Context()) {
		t.Error("the position is stored, and events would be sent again")
	}
}

// TestDoubtConfirmsNothing: rows may be missing in the stream. The position is stored at the end of
// the session, and not confirmed.
func TestDoubtConfirmsNothing(t *testing.T) {
	t.Parallel()
	f := setup(t)
	s := f.resume()
	f.exec("INSERT INTO outbox VALUES (1, 't', 'k', 'x')")
	end := f.inspect().WALEnd
	s.watermark.Idle(end)
	for s.stream.Received() < end { // what was not is not confirmed anyway
		if _, err := s.stream.Next(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	_ = s.finish(t.Context(), &cdc.StopError{What: "Postgres has skipped rows", Gap: true}) // which it returns
	if stored, _, err := s.store.Load(t.Context()); err != nil || stored.End != end {
		t.Errorf("%s is stored (%v), want %s", stored.End, err, end)
	}
	if confirmed := f.inspect().Slot.Confirmed(); confirmed >= end {
		t.Errorf("%s is confirmed, in doubt", confirmed)
	}
}
