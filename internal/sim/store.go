package sim

import (
	"context"
	"errors"
	"time"

	"github.com/walpost/walpost/checkpoint"
)

var errUnreachable = errors.New("the brokers do not answer (simulated)")

// store is the state topic as a relay without transactions writes it, and as every relay reads it.
type store struct {
	k       *kafka
	by      *instance
	ctx     context.Context
	cancel  context.CancelFunc
	writes  chan write
	stopped chan struct{}
}

type write struct {
	state checkpoint.State
	done  chan error
}

func newStore(k *kafka, by *instance) *store {
	s := &store{k: k, by: by, writes: make(chan write, 1000), stopped: make(chan struct{})}
	s.ctx, s.cancel = context.WithCancel(context.Background())
	go s.run()
	return s
}

func (s *store) Close() {
	s.cancel()
	<-s.stopped
}

// run writes one state after the other. As the client does, it goes on with one whose caller has
// given up.
func (s *store) run() {
	defer close(s.stopped)
	for {
		var w write
		select {
		case <-s.ctx.Done():
			return
		case w = <-s.writes:
		}
		for !s.write(w) {
			if !wait(s.ctx, 250*time.Millisecond) {
				return
			}
		}
	}
}

func (s *store) write(w write) bool {
	if !wait(s.ctx, s.k.pause(5*time.Millisecond)) {
		return false
	}
	s.k.mu.Lock()
	if s.by.isDead() || !s.k.available(s.k.states) {
		s.k.mu.Unlock()
		return false
	}
	err := s.k.append(s.k.states, []*entry{{state: &w.state, by: s.by}}, "", 0)
	s.k.mu.Unlock()
	if wait(s.ctx, s.k.pause(5*time.Millisecond)) && !s.by.isDead() {
		w.done <- err
	}
	return true
}

func (s *store) Save(ctx context.Context, state checkpoint.State) error {
	w := write{state, make(chan error, 1)}
	select {
	case s.writes <- w:
	case <-ctx.Done():
		return ctx.Err()
	}
	select {
	case err := <-w.done:
		return err
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (s *store) Load(ctx context.Context) (checkpoint.State, bool, error) { return s.read(ctx, false) }

func (s *store) LoadCommitted(ctx context.Context) (checkpoint.State, bool, error) {
	return s.read(ctx, true)
}

func (s *store) read(ctx context.Context, glance bool) (checkpoint.State, bool, error) {
	ctx, cancel := context.WithTimeout(ctx, 20*time.Second)
	defer cancel()
	for wait(ctx, s.k.pause(5*time.Millisecond)) {
		s.k.mu.Lock()
		state, stored, ok := s.k.furthest(glance)
		down := s.by.isDead() || s.k.down
		s.k.mu.Unlock()
		if ok && !down {
			return state, stored, nil
		}
		if !wait(ctx, 100*time.Millisecond) {
			break
		}
	}
	return checkpoint.State{}, false, errUnreachable
}
