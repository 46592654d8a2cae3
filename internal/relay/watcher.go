package relay

import (
	"context"
	"fmt"
	"sync/atomic"
	"time"

	"github.com/walpost/walpost/cdc"
)

const (
	// lookOften is the time between two looks while positions wait to be trusted or events are in flight.
	lookOften = time.Second
	// lookRarely is the time between two looks at an idle database.
	lookRarely = 10 * time.Second
	// lingering is how long the connection of an inspection stays while no other inspection is due.
	lingering = 2 * time.Second
	// lookTimeout bounds one look.
	lookTimeout = 10 * time.Second
)

// watch looks at the slot and the publication for as long as the session runs. It returns what must end the session: the
// server shuts down, or rows may be missing in the stream.
func (s *session) watch(ctx context.Context) error {
	last := time.Now()
	stalled := false
	for {
		stalled = s.sayStall(stalled)
		wait := time.Until(last.Add(lookRarely))
		s.resting.Store(true) // before it asks: what comes in between is noticed here or there
		if s.busy() || stalled {
			s.resting.Store(false)
			wait = lookOften
		} else if s.inspector.Open() {
			wait = min(wait, lingering)
		}
		timer := time.NewTimer(wait)
		select {
		case <-ctx.Done():
			timer.Stop()
			return nil
		case <-s.stir:
			timer.Stop()
			continue
		case <-s.look:
			timer.Stop()
		case <-timer.C:
			if time.Since(last) < lookRarely && !s.busy() {
				s.inspector.Close()
				continue
			}
		}
		last = time.Now()
		err := s.verify(ctx)
		switch {
		case ctx.Err() != nil:
			return nil
		case err == nil:
			if s.blind.Swap(nil) != nil {
				s.log.Info().Msg("looking at the slot works again")
			}
		case cdc.Stopping(err):
			return fmt.Errorf("%w (%w)", cdc.ErrStopping, err)
		case !cdc.Transient(err):
			return err
		case s.pings.stormy.Load():
			return fmt.Errorf("%w: it asks for our position again and again, and takes no other connection", cdc.ErrStopping)
		case s.blind.Load() == nil:
			s.blind.Store(&blindness{time.Now(), err})
			s.log.Warn().Err(err).Msg("cannot look at the slot and the publication: positions wait to be confirmed until it works")
		}
	}
}

// blindness is why, and since when, the watcher cannot look.
type blindness struct {
	since time.Time
	err   error
}

// unseen says that nothing is confirmed for want of a look; empty = it is, or will be in a moment.
func (s *session) unseen() string {
	if s == nil {
		return ""
	}
	blind := s.blind.Load()
	if blind == nil || time.Since(blind.since) < saveTimeout {
		return ""
	}
	return fmt.Sprintf("events are published, but no position is confirmed and Postgres keeps all WAL: the slot and the publication could not be looked at for %s: %s",
		time.Since(blind.since).Round(time.Second), blind.err)
}

// rouse ends a rest of the watcher. Whoever calls it has made the session busy before.
func (s *session) rouse() {
	if s.resting.Load() && s.resting.CompareAndSwap(true, false) {
		signal(s.stir)
	}
}

// sayStall says once that events wait, whatever the reason is.
func (s *session) sayStall(said bool) bool {
	st := s.out.Stats()
	reason := s.unsaved(s.r.cfg.StateTopic)
	if reason == "" && st.Events > 0 {
		reason = st.Reason
	}
	if reason != "" && !said {
		s.log.Warn().Str("reason", reason).Int64("in_flight_events", st.Events).Msg("events or their position wait, nothing is lost")
	}
	return reason != ""
}

// busy reports whether a look would let something through or notice something in time.
func (s *session) busy() bool {
	return s.trusted.stored() > s.trusted.verified() || s.out.Stats().Events > 0
}

// verify looks at the database and lets positions through as far as the look reaches.
func (s *session) verify(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, lookTimeout)
	defer cancel()
	view, err := s.r.inspect(ctx, s.history, &s.inspector, true)
	if inDoubt(err) {
		return fmt.Errorf("%w (until %s all was well)", err, s.trusted.verified())
	}
	if err != nil {
		return err
	}
	if err := view.CheckUnaltered(s.r.cfg.CDC, s.trusted.view().Identity()); err != nil {
		return fmt.Errorf("%w (until %s all was well)", err, s.trusted.verified())
	}
	s.trusted.trust(view)
	s.r.warn(view)
	return nil
}

// ping keeps the health of Kafka known while there is nothing to produce, and has the sink look for its topics while events
// wait. It has a goroutine of its own, because brokers that do not answer must not hold up a look at Postgres.
func (s *session) ping(ctx context.Context) {
	ticker := time.NewTicker(lookRarely)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
		limited, cancel := context.WithTimeout(ctx, lookTimeout)
		s.out.FindTopics(limited)
		if s.out.Stats().Events == 0 {
			// The hooks of the client note the outcome.
			_ = s.out.Ping(limited)
		}
		cancel()
	}
}

// pings recognises a server that wants to stop: its walsender asks for our position thousands of times a second until we
// confirm everything that it has sent.
type pings struct {
	since  time.Time
	end    cdc.LSN
	count  int
	stormy atomic.Bool
}

// stormPings within stormTime, with an end of the WAL that does not move, are a storm.
const (
	stormPings = 50
	stormTime  = 2 * time.Second
)

// storm counts a ping and reports whether it is one of a storm that deserves a look.
func (p *pings) storm(end cdc.LSN, now time.Time) bool {
	if end != p.end || now.Sub(p.since) > stormTime {
		p.since, p.end, p.count = now, end, 0
		p.stormy.Store(false)
	}
	p.count++
	if p.count == stormPings {
		p.stormy.Store(true)
		return true
	}
	return false
}
