package relay

import (
	"fmt"
	"time"

	"github.com/walpost/walpost/cdc"
	"github.com/walpost/walpost/sink"
)

// State is what a Relay is doing.
type State string

// The states of a Relay.
const (
	Starting     State = "starting"
	Waiting      State = "waiting for the slot"
	Streaming    State = "streaming"
	Reconnecting State = "reconnecting"
	Draining     State = "draining"
	Stopped      State = "stopped"
)

// Status is a picture of a Relay.
type Status struct {
	Source     string // <system identifier>/<slot>; empty before the first session
	Delivery   string // at-least-once, exactly-once, or effectively-once: exactly-once by brokers whose transactions cannot promise it
	State      State
	Reasons    []string // why it is not ready; empty = it is
	Warnings   []string // what may cost or repeat events although it works
	Postgres   bool     // a stream is running
	Sink       sink.Stats
	Reconnects uint64 // streams after the first

	Received, Stored, Confirmed cdc.LSN
	Database                    *cdc.View // the last inspection; nil before the first
	Oldest                      time.Time // commit time of the oldest transaction not wholly published; zero = none
}

// view is what the relay keeps for Status, under its mutex.
type view struct {
	state   State
	weak    bool // the brokers' transactions cannot promise exactly once
	reason  string
	source  string
	out     *sink.Sink
	session *session
	streams uint64
}

// saveTimeout is how long a position may take to be stored, or to be confirmed, before that is
// said.
const saveTimeout = 10 * time.Second

// unsaved says that the position cannot be stored; empty = it can, or nobody tries.
func (s *session) unsaved(topic string) string {
	if s == nil {
		return ""
	}
	since := s.saving.Load()
	if since == nil {
		return ""
	}
	if took := time.Since(*since); took > saveTimeout {
		return fmt.Sprintf("the position has been waiting for state topic %q for %s: is it there, and can it be written?", topic, took.Round(time.Second))
	}
	return ""
}

// setState notes what the relay does.
func (r *Relay) setState(state State, reason string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.view.state, r.view.reason = state, reason
}

// producing notes whose events a sink publishes.
func (r *Relay) producing(source string, out *sink.Sink) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.view.source, r.view.out = source, out
}

// waitsFor notes why a start takes so long.
func (r *Relay) waitsFor(reason string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.view.reason = reason
}

// guaranteed notes whether the brokers' transactions are good for exactly once.
func (r *Relay) guaranteed(strong bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.view.weak = !strong
}

// streaming notes a new session.
func (r *Relay) streaming(s *session) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.view.state, r.view.reason, r.view.session = Streaming, "", s
	r.view.streams++
}

func (r *Relay) delivery(weak bool) string {
	switch {
	case !r.cfg.ExactlyOnce:
		return "at-least-once"
	case weak:
		return "effectively-once"
	default:
		return "exactly-once"
	}
}

// Status returns the present state. It reads counters and never waits for the pipeline, Postgres or
// Kafka.
func (r *Relay) Status() Status {
	r.mu.Lock()
	v := r.view
	r.mu.Unlock()
	st := Status{Source: v.source, State: v.state, Postgres: v.state == Streaming}
	st.Delivery = r.delivery(v.weak)
	if v.streams > 0 {
		st.Reconnects = v.streams - 1
	}
	if v.state != Streaming {
		st.Reasons = append(st.Reasons, v.reason)
	}
	if v.out != nil {
		st.Sink = v.out.Stats()
	} else {
		st.Sink.Errors = sink.NoErrors()
		st.Sink.Up, st.Sink.Reason, st.Sink.Reconnects = r.health.State()
	}
	if reason := v.session.unsaved(r.cfg.StateTopic); reason != "" {
		st.Reasons = append(st.Reasons, reason)
	}
	if v.session != nil && v.state == Streaming {
		if why := v.session.explained.Load(); why != nil {
			st.Reasons = append(st.Reasons, *why)
		}
	}
	if reason := v.session.unconfirmed(); reason != "" && v.state == Streaming {
		st.Reasons = append(st.Reasons, reason)
	}
	if reason := v.session.decoding(); reason != "" && v.state == Streaming {
		st.Reasons = append(st.Reasons, reason)
	}
	if st.Sink.Reason != "" {
		st.Reasons = append(st.Reasons, st.Sink.Reason)
	} else if !st.Sink.Up && v.out != nil { // it was asked
		st.Reasons = append(st.Reasons, "no word from Kafka yet")
	}
	if s := v.session; s != nil {
		database := s.confirmable.inspected()
		st.Database, st.Stored, st.Confirmed = &database, s.confirmable.storedUpTo(), s.stream.Confirmed()
		st.Received = s.stream.Received()
		for _, w := range database.Warnings(r.cfg.CDC) {
			st.Warnings = append(st.Warnings, w.What+": "+w.Hint)
		}
		st.Oldest, _ = s.watermark.Oldest()
	}
	return st
}
