package sink

import (
	"fmt"
	"maps"
	"time"

	"github.com/walpost/walpost/decoder"
)

// refuse is the failure of an event that breaks the contract. It was never in flight: what came
// before it may still be confirmed, and nothing comes after it.
func (s *Sink) refuse(e *decoder.Event, txn Transaction, reason string, err error) error {
	return s.latch(reason, &EventError{
		EventID: string(e.ID), Commit: txn.Commit, Index: e.Index, Topic: string(s.topics.name), Reason: reason, Err: err,
	})
}

// fail is the failure of an event that the brokers refuse for good, or the client for them. Behind
// a record that may be too large nothing was produced; for every other one the gate has to keep
// back what was.
func (s *Sink) fail(f *flight, err error) {
	if !f.large() {
		s.gate.close()
	}
	// Last: it wakes whoever waits for what was sent, who then asks for the error. Nothing is
	// committed meanwhile, since the client counts a record as flushed once its promise has
	// returned.
	defer s.how.failed()
	if s.cfg.Exactly != nil && fencing(err) {
		_ = s.latch(reasonOutage, &CommitError{Fenced: true, Err: err})
		return
	}
	s.blame(f, err, true)
}

// deny is the failure of an event that was never sent, because its topic cannot be used. What went
// before it may still be published.
func (s *Sink) deny(f *flight, err error) {
	if s.Err() == nil { // else another event ended the wait for the topic
		s.blame(f, err, false)
	}
}

func (s *Sink) blame(f *flight, err error, sent bool) {
	reason, hint := classify(f.topic.name, err, s.cfg.Exactly != nil)
	e := f.event()
	e.Partition = f.record.Partition // the client is done with the record
	e.Reason, e.Hint, e.Sent, e.Alone, e.Outage, e.Err = reason, hint, sent, f.alone(), reason == reasonOutage, err
	_ = s.latch(reason, e) // whoever waits learns of it from Failed and Err
}

// event names the event of a flight.
func (f *flight) event() *EventError {
	return &EventError{
		EventID: string(f.record.Headers[0].Value), Commit: f.commit, Index: f.index, Topic: f.topic.name, Partition: -1,
	}
}

// latch keeps the error that ends the sink, returns it, and wakes whoever waits. Of several events
// it keeps the one that comes first in the stream. An event that breaks the contract is found while
// others before it are still in flight. If one of those is refused, or ended by an outage, it is
// the one to name: skipping the later one would also skip it.
func (s *Sink) latch(reason string, err error) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.causes[reason]++
	if s.err != nil {
		if earlier(err, s.err) {
			s.err = err
		}
		return s.err
	}
	s.err = err
	close(s.failed)
	s.order.wake()
	return err
}

// Failed is closed when the first permanent error has happened; Err returns it.
func (s *Sink) Failed() <-chan struct{} { return s.failed }

// Err returns the first permanent error, an [*EventError] or a [*CommitError], or nil.
func (s *Sink) Err() error {
	select {
	case <-s.failed:
		s.mu.Lock()
		defer s.mu.Unlock()
		return s.err
	default:
		return nil
	}
}

// inherit takes over the counts of a sink that was closed.
func (s *Sink) inherit(before *Sink) {
	for name, n := range before.topics.published() {
		s.topics.named(name).published.Store(n)
	}
	s.builder.leftOut = before.builder.leftOut
	before.mu.Lock()
	defer before.mu.Unlock()
	maps.Copy(s.causes, before.causes)
	s.cfg.Before = nil // nor its records and connections
}

// stall is how long the brokers may confirm nothing while events are in flight.
const stall = 15 * time.Second

// boot is what moments are counted from.
var boot = time.Now()

// moment is a time as a number that does not follow a step of the wall clock: nothing is stalled
// because the clock was set.
func moment(t time.Time) int64 { return int64(t.Sub(boot)) }

// since is how long ago a moment was.
func since(m int64) time.Duration { return time.Duration(moment(time.Now()) - m) }

// Stats is what a Sink shows of itself.
type Stats struct {
	Events, Bytes int64             // in flight
	Published     map[string]uint64 // by topic
	Errors        map[string]uint64 // permanent errors by reason; each reason is there from the start
	Up            bool              // the last word of the brokers was not an error
	Reason        string            // why events wait; empty = they do not
	Reconnects    uint64            // how often the brokers came back after an outage
}

// Idle is for how long events have been in flight of which none was confirmed; 0 = there are none.
func (s *Sink) Idle() time.Duration {
	return s.inFlight.idle()
}

// Stats returns a copy.
func (s *Sink) Stats() Stats {
	st := Stats{Events: s.inFlight.events.Load(), Bytes: s.bytes.Load(), Published: s.topics.published()}
	st.Up, st.Reason, st.Reconnects = s.health.Look()
	if m := s.resolver.missing.Load(); m != nil && st.Reason == "" && st.Events > 0 {
		st.Reason = *m
	}
	if st.Reason == "" && st.Events > 0 {
		st.Reason = s.trouble.reason()
	}
	if stalled := s.inFlight.idle(); st.Reason == "" && st.Events > 0 && stalled > stall {
		st.Reason = fmt.Sprintf("%d events are in flight, and none was confirmed for %s", st.Events, stalled.Round(time.Second))
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	st.Errors = make(map[string]uint64, len(s.causes))
	for reason, n := range s.causes {
		st.Errors[reason] = n
	}
	return st
}
