package relay

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/walpost/walpost/cdc"
	"github.com/walpost/walpost/checkpoint"
)

const (
	// keepEvery is the shortest time between two stored positions: a kill repeats at most that much.
	keepEvery = 50 * time.Millisecond
	// lastSave bounds the write of the last position after a drain that took too long.
	lastSave = 2 * time.Second
	// idleEvery is the shortest time between two that moved without an event.
	idleEvery = 10 * time.Second
)

// keep carries the position back: stored first, confirmed second. It returns nil when ctx ends, or why no position can
// be stored any more.
func (s *session) keep(ctx context.Context) error {
	last, hurry := time.Now(), false
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-s.watermark.Moved():
		case <-s.hurry:
			hurry = true
		}
		pos, n, _ := s.watermark.Position()
		if pos == s.stored {
			continue
		}
		if !hurry && !s.pause(ctx, last, n, n == s.passed) {
			return nil
		}
		last, hurry = time.Now(), false
		pos, n, freed := s.watermark.Position()
		if err := s.save(ctx, pos); err != nil {
			return err
		}
		s.watermark.Stored(freed)
		s.passed = n
	}
}

// pause waits until a position may be stored again, or until the server hurries. A pause for the sake of an idle advance
// is longer, and ends when more than the given number of marks with events lies behind the position. False means that
// ctx has ended.
func (s *session) pause(ctx context.Context, last time.Time, passed uint64, idle bool) bool {
	wait, moved := keepEvery, (<-chan struct{})(nil)
	if idle {
		wait, moved = idleEvery, s.watermark.Moved()
	}
	timer := time.NewTimer(time.Until(last.Add(wait)))
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return false
		case <-timer.C:
			return true
		case <-s.hurry:
			return true
		case <-moved:
			if _, n, _ := s.watermark.Position(); n != passed {
				return true
			}
		}
	}
}

// save stores a position and then lets the stream confirm it.
func (s *session) save(ctx context.Context, pos checkpoint.Position) error {
	began := time.Now()
	s.saving.Store(&began)
	defer s.saving.Store(nil)
	state := s.state(pos)
	if err := s.out.Save(ctx, state); err != nil {
		return &kafkaError{err}
	}
	s.r.pay(state)
	s.stored = pos
	s.trusted.store(pos.End)
	s.rouse()
	return nil
}

// state is the record of a position. It carries the publication as it was last seen to be whole, not as it is now.
func (s *session) state(pos checkpoint.Position) checkpoint.State {
	return checkpoint.State{
		Position: pos, Timeline: max(s.history.At(pos.Furthest()), s.timeline), At: time.Now(),
		Generation: s.generation, Publication: s.trusted.view().Identity(),
	}
}

// settle stores and confirms the last position of a session, and remembers it for the next one. It confirms nothing if
// the session ended because rows may be missing.
func (s *session) settle(ctx context.Context, cause error) {
	pos, n, _ := s.watermark.Position()
	s.r.last, s.r.sent = s.state(pos), s.state(s.watermark.Reached())
	if refused := s.r.refused; refused != nil && pos.Published(cdc.LSN(refused.Commit), refused.Index) {
		s.r.refused = nil // the brokers have taken it after all
	}
	if ctx.Err() != nil { // the drain took too long: what was confirmed in it shall not be sent again
		last, cancel := context.WithTimeout(context.WithoutCancel(ctx), lastSave)
		defer cancel()
		ctx = last
	}
	if pos != s.stored {
		if err := s.save(ctx, pos); err != nil {
			if ctx.Err() != nil {
				err = errors.New("the brokers did not answer in time")
			}
			s.unsavedPosition(err, n)
			return
		}
	}
	if inDoubt(cause) || s.closed || s.stream.Gone() {
		return
	}
	if pos.End > s.trusted.verified() {
		if err := s.verify(ctx); err != nil {
			s.log.Debug().Err(err).Msg("the last position is stored, but could not be confirmed")
		}
	}
}

// unsavedPosition says what the last position that could not be stored means to a start: nothing, if no event lies between it and the one that
// is. With exactly once none ever does, since every event that is published has its position with it.
func (s *session) unsavedPosition(err error, passed uint64) {
	err = fmt.Errorf("the last position is not stored: %w", err)
	if s.r.cfg.ExactlyOnce || passed == s.passed {
		s.log.Debug().Err(err).Msg("no event lies between the last position and the one that is stored")
		return
	}
	s.r.owe(err, s.r.last)
	s.log.Warn().Err(err).Msg("the last position could not be stored; it will be, or its events are sent again")
}

// gate lets a position through to the stream once it is stored, and the publication is known to have been whole until there.
type gate struct {
	mu       sync.Mutex
	stream   *cdc.Stream
	saved    cdc.LSN
	sound    cdc.LSN
	lastView cdc.View
}

func (g *gate) init(stream *cdc.Stream, start cdc.LSN, view cdc.View) {
	g.stream, g.saved, g.sound, g.lastView = stream, start, max(start, view.WALEnd), view
}

func (g *gate) store(lsn cdc.LSN) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.saved = max(g.saved, lsn)
	g.stream.Confirm(min(g.saved, g.sound))
}

func (g *gate) trust(view cdc.View) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.lastView = view
	g.sound = max(g.sound, view.WALEnd)
	g.stream.Confirm(min(g.saved, g.sound))
}

func (g *gate) view() cdc.View {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.lastView
}

func (g *gate) stored() cdc.LSN {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.saved
}

func (g *gate) verified() cdc.LSN {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.sound
}
