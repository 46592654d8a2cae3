package sink

import (
	"context"
	"time"
)

// afterFailure is how long records that were sent before a permanent error may take to be
// confirmed.
const afterFailure = 2 * time.Second

// Flush sends what lingers and returns when nothing is in flight any more, or ctx ends. If the wire
// gate has shut, what was sent already gets a moment to be confirmed. The error is the one that
// ended the sink, if one has.
func (s *Sink) Flush(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	go func() {
		select {
		case <-s.gate.shut:
			_ = sleep(ctx, afterFailure)
			cancel()
		case <-ctx.Done():
		}
	}()
	prepared := make(chan struct{})
	go func() { s.preparing.Wait(); close(prepared) }()
	var err error
	select {
	case <-prepared: // the client has every record now
		err = s.how.flush(ctx)
	case <-ctx.Done():
		err = ctx.Err()
	}
	if ended := s.Err(); ended != nil {
		return ended
	}
	return err
}

// Closed reports whether Close was called.
func (s *Sink) Closed() bool { return s.ctx.Err() != nil }

// Close gives up what is in flight and closes the connections.
func (s *Sink) Close() {
	if s.Closed() {
		return
	}
	s.cancel()
	s.gate.giveUp()
	s.preparing.Wait()
	s.how.close()
	s.client.Close()
}
