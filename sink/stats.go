package sink

import (
	"fmt"
	"maps"
	"sync/atomic"
	"time"
)

// inFlight counts events in flight, of a sink or of a topic.
type inFlight struct {
	events atomic.Int64
	moved  atomic.Int64 // the moment of the last confirmation, or of the first event in flight
}

// add counts an event that is about to be sent.
func (c *inFlight) add() {
	if c.events.Add(1) == 1 {
		c.moved.Store(moment(time.Now()))
	}
}

// remove counts an event as published at a moment.
func (c *inFlight) remove(at int64) {
	c.moved.Store(at)
	c.events.Add(-1)
}

// idle is for how long events have been in flight of which none was confirmed; 0 = there are none.
func (c *inFlight) idle() time.Duration {
	if c.events.Load() == 0 {
		return 0
	}
	return since(c.moved.Load())
}

// inherit continues the counts of a sink that was closed.
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
	Errors        map[string]uint64 // permanent errors by reason; each is there from the start
	Up            bool              // the last request did not fail
	Reason        string            // why events wait; empty = they do not
	Reconnects    uint64            // how often the brokers came back after an outage
}

// Idle is for how long events have been in flight of which none was confirmed; 0 = there are none.
func (s *Sink) Idle() time.Duration { return s.inFlight.idle() }

// Stats returns a copy.
func (s *Sink) Stats() Stats {
	st := Stats{Events: s.inFlight.events.Load(), Bytes: s.bytes.Load(), Published: s.topics.published()}
	st.Up, st.Reason, st.Reconnects = s.health.State()
	if st.Reason == "" && st.Events > 0 {
		st.Reason = s.reason(st.Events)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	st.Errors = maps.Clone(s.causes)
	return st
}

// reason says why events wait though the brokers answer; empty = they do not, or nobody knows.
func (s *Sink) reason(events int64) string {
	if missing := s.resolver.missing.Load(); missing != nil {
		return *missing
	}
	if reason := s.trouble.reason(); reason != "" {
		return reason
	}
	if stalled := s.inFlight.idle(); stalled > stall {
		return fmt.Sprintf("no event was confirmed for %s (in flight: %d)", stalled.Round(time.Second), events)
	}
	return ""
}
