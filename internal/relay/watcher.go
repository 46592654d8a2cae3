package relay

import (
	"context"
	"fmt"
	"sync/atomic"
	"time"

	"github.com/walpost/walpost/cdc"
	"github.com/walpost/walpost/checkpoint"
)

const (
	// inspectOften is the time between two inspections while positions wait to be confirmed or
	// events are in flight.
	inspectOften = time.Second
	// inspectIdle is the time between two inspections of an idle database.
	inspectIdle = 10 * time.Second
	// keepConnection is how long the connection of an inspection stays while no other inspection is
	// due.
	keepConnection = 2 * time.Second
	// inspectTimeout bounds one inspection.
	inspectTimeout = 10 * time.Second
)

// watch inspects the slot and the publication for as long as the session runs. It returns what must
// end the session: the server shuts down, or rows may be missing in the stream.
func (s *session) watch(ctx context.Context) error {
	last := time.Now()
	var progress progress
	for {
		s.noteWait(&progress)
		stalled := s.sayStall()
		s.sayDecoding()
		wait := time.Until(last.Add(inspectIdle))
		s.idle.Store(true) // before it asks: what comes in between is noticed here or there
		if s.busy() || stalled {
			s.idle.Store(false)
			wait = inspectOften
		} else if s.inspector.Open() {
			wait = min(wait, keepConnection)
		}
		timer := time.NewTimer(wait)
		select {
		case <-ctx.Done():
			timer.Stop()
			return nil
		case <-s.wake:
			timer.Stop()
			continue
		case <-s.inspectNow:
			timer.Stop()
		case <-timer.C:
			if time.Since(last) < inspectIdle && !s.busy() {
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
			if s.uninspected.Swap(nil) != nil {
				s.log.Info().Dur("outage_ms", s.inspectNotice.End()).Msg("the slot can be inspected again")
			}
		case cdc.Stopping(err):
			return fmt.Errorf("%w (%w)", cdc.ErrStopping, err)
		case !cdc.Transient(err):
			return err
		case s.pings.stormy.Load():
			return fmt.Errorf("%w: it asks for our position again and again, and takes no other connection", cdc.ErrStopping)
		default:
			s.cannotInspect(err)
		}
	}
}

// cannotInspect notes the failure of an inspection.
func (s *session) cannotInspect(err error) {
	now := &inspectFailure{time.Now(), err}
	if before := s.uninspected.Load(); before != nil {
		now.since = before.since
	}
	s.uninspected.Store(now)
	if s.inspectNotice.Due("", err.Error()) {
		s.log.Warn().Err(err).Dur("outage_ms", time.Since(now.since)).
			Msg("the slot and the publication cannot be inspected: nothing is lost, but nothing is confirmed until they can")
	}
}

// inspectFailure is why, and since when, the slot cannot be inspected.
type inspectFailure struct {
	since time.Time
	err   error
}

// unconfirmed says that nothing is confirmed because the slot could not be inspected; empty = it
// can be.
func (s *session) unconfirmed() string {
	if s == nil {
		return ""
	}
	failure := s.uninspected.Load()
	if failure == nil || time.Since(failure.since) < saveTimeout {
		return ""
	}
	return fmt.Sprintf("events are published, but no position is confirmed and Postgres keeps all WAL: the slot and the publication could not be inspected for %s: %s",
		time.Since(failure.since).Round(time.Second), failure.err)
}

// wakeWatcher has an idle watcher inspect soon. Whoever calls it has made the session busy before.
func (s *session) wakeWatcher() {
	if s.idle.Load() && s.idle.CompareAndSwap(true, false) {
		poke(s.wake)
	}
}

// sayStall says that events wait, whatever the reason is, and reports whether they do.
func (s *session) sayStall() bool {
	st := s.out.Stats()
	reason := s.unsaved(s.r.cfg.StateTopic)
	if reason == "" && st.Events > 0 {
		reason = st.Reason
	}
	if reason == "" {
		s.stallNotice.End()
		return false
	}
	if s.stallNotice.Due("", reason) {
		s.log.Warn().Str("reason", reason).Int64("in_flight_events", st.Events).Dur("outage_ms", s.stallNotice.Lasted()).
			Msg("events or their position wait, nothing is lost")
	}
	return true
}

// decodingTimeout is how long Postgres may decode one transaction without sending any of it, before
// that is said.
const decodingTimeout = 30 * time.Second

// decoding says that Postgres is at work on a large transaction; empty = it is not, or not for
// long.
func (s *session) decoding() string {
	if s == nil {
		return ""
	}
	took := s.stream.Decoding()
	if took < decodingTimeout {
		return ""
	}
	return fmt.Sprintf("Postgres is decoding a large transaction, and has sent nothing of it for %s: what was committed after it waits, nothing is lost",
		took.Round(time.Second))
}

// sayDecoding says so in the log.
func (s *session) sayDecoding() {
	reason := s.decoding()
	switch {
	case reason == "" && s.decodingNotice.Lasted() > 0 && s.stream.Decoding() == 0:
		s.decodingNotice.End()
		s.log.Info().Msg("Postgres has decoded the large transaction")
	case reason != "" && s.decodingNotice.Due("", reason):
		s.log.Info().Uint32("pid", s.stream.PID()).Msg(reason)
	}
}

// progress is how far events were published when the watcher asked last.
type progress struct {
	at       time.Time
	position checkpoint.Position
	inFlight bool
}

// noteWait tells the sink whether events have been waiting for a second.
func (s *session) noteWait(last *progress) {
	if time.Since(last.at) < inspectOften/2 {
		return
	}
	now := progress{at: time.Now(), inFlight: s.out.InFlight()}
	now.position, _, _ = s.watermark.Position()
	s.out.Watch(last.inFlight && now.inFlight && now.position == last.position)
	*last = now
}

// busy reports whether an inspection would let something be confirmed, or notice something in time.
func (s *session) busy() bool {
	return s.confirmable.storedUpTo() > s.confirmable.verifiedUpTo() || s.out.Stats().Events > 0
}

// verify inspects the database and lets positions be confirmed as far as the inspection reaches.
func (s *session) verify(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, inspectTimeout)
	defer cancel()
	view, err := s.inspect(ctx, &s.inspector, true)
	if classify(err).class == doubt {
		return fmt.Errorf("%w (until %s all was well)", err, s.confirmable.verifiedUpTo())
	}
	if err != nil {
		return err
	}
	s.stream.NoteInspection(view)
	if err := view.CheckUnaltered(s.r.cfg.CDC, s.confirmable.inspected().Identity()); err != nil {
		return fmt.Errorf("%w (until %s all was well)", err, s.confirmable.verifiedUpTo())
	}
	s.r.warnOfLost(s.confirmable.inspected(), view)
	s.confirmable.verify(view)
	s.warn(view)
	return nil
}

// ping keeps the health of Kafka known while there is nothing to produce, and has the sink search
// for its topics while events wait. It has a goroutine of its own, because brokers that do not
// answer must not hold up an inspection of Postgres.
func (s *session) ping(ctx context.Context) {
	ticker := time.NewTicker(inspectIdle)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
		s.inquire(ctx)
		limited, cancel := context.WithTimeout(ctx, inspectTimeout)
		s.out.FindTopics(limited)
		if s.out.Stats().Events == 0 {
			// The hooks of the client note the outcome.
			_ = s.out.Ping(limited)
		}
		cancel()
	}
}

// pings recognises a server that wants to stop: its walsender asks for our position thousands of
// times a second until we confirm everything that it has sent.
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

// storm counts a ping and reports whether it is one of a storm, which deserves an inspection.
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
