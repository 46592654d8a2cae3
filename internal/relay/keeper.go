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
	// keepEvery is the shortest time between two stored positions: a kill repeats at most that
	// much.
	keepEvery = 50 * time.Millisecond
	// lastSave bounds the write of the last position after a drain that took too long.
	lastSave = 2 * time.Second
	// idleEvery is the shortest time between two that moved without an event.
	idleEvery = 10 * time.Second
)

// keep carries the position back: stored first, confirmed second. It returns nil when ctx ends, or
// why no position can be stored any more.
func (s *session) keep(ctx context.Context) error {
	last, now := time.Now(), false
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-s.watermark.Moved():
		case <-s.storeNow:
			now = true
		}
		pos, n, _ := s.watermark.Position()
		if pos == s.lastStored {
			continue
		}
		if !now && !s.pause(ctx, last, n, n == s.passed) {
			return nil
		}
		last, now = time.Now(), false
		pos, n, freed := s.watermark.Position()
		if err := s.save(ctx, pos); err != nil {
			return err
		}
		s.watermark.Stored(freed)
		s.passed = n
	}
}

// pause waits until a position may be stored again, or until the server wants to know. A pause for
// the sake of an idle advance is longer, and ends when more than the given number of marks with
// events lies behind the position. False means that ctx has ended.
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
		case <-s.storeNow:
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
	s.noteStored(state)
	s.lastStored = pos
	s.confirmable.store(pos.End)
	s.wakeWatcher()
	return nil
}

// state is the record of a position. It carries the publication as it was last seen to be whole,
// not as it is now.
func (s *session) state(pos checkpoint.Position) checkpoint.State {
	return checkpoint.State{
		Position: pos, Timeline: max(s.history.At(pos.Furthest()), s.timeline), At: time.Now(),
		Generation: s.generation, Publication: s.confirmable.inspected().Identity(),
	}
}

// storeLast stores the last position of a session, keeps it for the next one, and confirms it to
// Postgres unless confirm is false: then rows may be missing in the stream.
func (s *session) storeLast(ctx context.Context, confirm bool) {
	pos, n, _ := s.watermark.Position()
	s.last, s.reached = s.state(pos), s.state(s.watermark.Reached())
	if first := s.sink.Refused; first != nil && pos.Published(cdc.LSN(first.Commit), first.Index) {
		s.sink.Refused = nil // the brokers took it after all
	}
	if ctx.Err() != nil { // the drain took too long: what was published in it must not be sent again
		last, cancel := context.WithTimeout(context.WithoutCancel(ctx), lastSave)
		defer cancel()
		ctx = last
	}
	if pos != s.lastStored {
		if err := s.save(ctx, pos); err != nil {
			if ctx.Err() != nil {
				err = errors.New("the brokers did not answer in time")
			}
			s.unsavedPosition(err, n)
			return
		}
	}
	if !confirm || s.closed || s.stream.Gone() {
		return
	}
	if pos.End > s.confirmable.verifiedUpTo() {
		if err := s.verify(ctx); err != nil {
			s.log.Debug().Err(err).Msg("the last position is stored, but could not be confirmed")
		}
	}
}

// unsavedPosition says what the last position that could not be stored means to a start: nothing,
// if no event lies between it and the stored one. With exactly once none ever does, since every
// event that is published has its position with it.
func (s *session) unsavedPosition(err error, passed uint64) {
	err = fmt.Errorf("the last position is not stored: %w", err)
	if s.r.cfg.ExactlyOnce || passed == s.passed {
		s.log.Debug().Err(err).Msg("no event lies between the last position and the stored one")
		return
	}
	s.mayRepeat(err, s.last)
	s.log.Warn().Err(err).Msg("the last position could not be stored; it will be, or its events are sent again")
}

// confirmable lets the stream confirm a position to Postgres once it is stored, and the publication
// is verified up to there.
type confirmable struct {
	mu       sync.Mutex
	stream   *cdc.Stream
	stored   cdc.LSN
	verified cdc.LSN
	lastView cdc.View // of the last inspection that found no fault
}

func (c *confirmable) init(stream *cdc.Stream, start cdc.LSN, view cdc.View) {
	c.stream, c.stored, c.verified, c.lastView = stream, start, max(start, view.WALEnd), view
}

func (c *confirmable) store(lsn cdc.LSN) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.stored = max(c.stored, lsn)
	c.stream.Confirm(min(c.stored, c.verified))
}

func (c *confirmable) verify(view cdc.View) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.lastView = view
	c.verified = max(c.verified, view.WALEnd)
	c.stream.Confirm(min(c.stored, c.verified))
}

func (c *confirmable) inspected() cdc.View {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.lastView
}

func (c *confirmable) storedUpTo() cdc.LSN {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.stored
}

func (c *confirmable) verifiedUpTo() cdc.LSN {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.verified
}
