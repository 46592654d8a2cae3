package sink

import (
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
