package relay

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/rs/zerolog"

	"github.com/walpost/walpost/cdc"
	"github.com/walpost/walpost/checkpoint"
	"github.com/walpost/walpost/decoder"
	"github.com/walpost/walpost/sink"
)

// behind is how old a transaction is, when it is sent, if the stream is behind the present. Both times are the server's.
const behind = 20 * time.Millisecond

// session is one replication connection and what belongs to it.
type session struct {
	r          *Relay
	log        zerolog.Logger
	history    cdc.History
	stream     *cdc.Stream
	decoder    *decoder.Decoder
	out        *sink.Sink
	watermark  *checkpoint.Watermark
	start      checkpoint.Position
	stored     checkpoint.Position // the last that was stored; of the keeper, and of settle after it
	passed     uint64              // how many marks with events lie before stored
	timeline   uint32              // the least of the states that it stores
	generation uint32              // of the states that it stores
	closed     bool
	rightful   bool // fenced by the brokers alone: nobody else had the slot
	pings      pings
	inspector  cdc.Inspector             // of the watcher, and of settle after it
	saving     atomic.Pointer[time.Time] // since when a position is being stored; nil = none is
	why        atomic.Pointer[string]    // what the brokers say of what waits for them; nil = nothing
	blind      atomic.Pointer[blindness] // why the watcher cannot look; nil = it can

	// Of the watcher: when the log says again what lasts.
	blindNotice, stallNotice, decodingNotice sink.Notice

	moved       int // rows that moved to another partition; of pump
	movedNotice sink.Notice

	hurry   chan struct{} // store at once: the server wants to know our position, or the bound is reached
	look    chan struct{} // the watcher shall look now
	resting atomic.Bool   // the watcher looks rarely until something comes
	stir    chan struct{} // something has come
	trusted gate
}

// session connects, resumes, streams, and ends in order. It returns why it ended.
func (r *Relay) session(ctx context.Context) error {
	defer r.retire()
	s, err := r.resume(ctx)
	if err != nil {
		return err
	}
	defer s.inspector.Close()
	r.streaming(s)
	return r.verdict(ctx, s, s.finish(ctx, s.run(ctx)))
}

// run is the loop with the keeper and the watcher beside it, until one of them ends.
func (s *session) run(parent context.Context) error {
	ctx, cancel := context.WithCancelCause(parent)
	defer s.stream.WatchContext(ctx)()
	var beside sync.WaitGroup
	defer beside.Wait()
	defer cancel(nil)
	beside.Go(func() { cancel(s.keep(ctx)) })
	beside.Go(func() { cancel(s.watch(ctx)) })
	beside.Go(func() { s.ping(ctx) })
	beside.Go(func() {
		select {
		case <-s.out.Failed():
			cancel(s.out.Err())
		case <-ctx.Done():
		}
	})
	return s.pump(ctx)
}

// pump is the relay: it reads the stream, decodes it in place, produces its events and keeps count of them. Everything
// that it calls returns at once, except Next and Wait, which answer the server meanwhile.
func (s *session) pump(ctx context.Context) error {
	var txn sink.Transaction
	for {
		msg, err := s.stream.Next(ctx)
		if err != nil {
			return err
		}
		if msg.Kind == cdc.Keepalive {
			s.keepalive(msg)
			continue
		}
		change, err := s.decoder.Decode(msg.Data)
		if err != nil {
			return s.undecoded(err)
		}
		switch change.Kind {
		case decoder.Begin:
			commit := cdc.LSN(change.CommitLSN)
			txn = sink.Transaction{Timeline: s.history.At(commit), Commit: change.CommitLSN, Time: change.CommitTime}
			s.watermark.Begin(commit, cdc.Time(change.CommitTime))
			s.stream.Pace(msg.ServerTime-change.CommitTime > behind.Microseconds())
		case decoder.Insert:
			if s.start.Published(cdc.LSN(txn.Commit), change.Event.Index) {
				continue
			}
			txn.Read = msg.Read
			mark := s.watermark.Add(change.Event.Index, sink.Size(change.Event))
			if err := s.out.Produce(change.Event, txn, mark, s.watermark.Reached()); err != nil {
				return err
			}
			s.rouse()
		case decoder.Moved:
			s.sayMoved(change.Event)
		case decoder.Commit:
			s.watermark.Commit(cdc.LSN(change.EndLSN))
			s.out.Reached(s.watermark.Reached())
		}
		if err := untilRoom(s.full, func() error { return s.stream.Wait(ctx, s.r.room) }); err != nil {
			return err
		}
	}
}

// sayMoved says that an INSERT was taken for the second half of an UPDATE, and is no event.
func (s *session) sayMoved(e *decoder.Event) {
	s.moved++
	if s.movedNotice.Due("", "moved") {
		s.log.Info().Str("table", e.Schema+"."+e.Table).Bytes("event_id", e.ID).Int("rows", s.moved).
			Msg("a row moved to another partition: its event is not published again")
	}
}

// undecoded says what a row that cannot be decoded means: in text form it may be one that can.
func (s *session) undecoded(err error) error {
	var bad *decoder.Error
	if errors.As(err, &bad) && bad.Binary && !s.r.text {
		s.r.text = true
		s.log.Info().Err(err).Msg("the stream begins again in text form")
		return errMoved
	}
	return err
}

// full reports whether the next event has to wait. Where the bound is reached, the keeper shall not pause.
func (s *session) full() bool {
	if s.out.Held() {
		return true
	}
	if !s.watermark.Full() {
		return false
	}
	signal(s.hurry)
	return true
}

// untilRoom asks again after each wait: Room may hold a word from before, and nothing may pass a held record.
func untilRoom(full func() bool, wait func() error) error {
	for full() {
		if err := wait(); err != nil {
			return err
		}
	}
	return nil
}

// keepalive takes the server's WAL end as an idle advance, and hurries if the server wants to know.
func (s *session) keepalive(msg cdc.Message) {
	s.watermark.Idle(msg.WALEnd)
	s.out.Reached(s.watermark.Reached())
	if !msg.ReplyRequested {
		return
	}
	signal(s.hurry)
	if s.pings.storm(msg.WALEnd, time.Now()) {
		signal(s.look)
	}
}

// finish ends a session. This is the order of every shutdown: nothing more is received; what is in flight is confirmed;
// the position is stored; it is confirmed to Postgres; the stream is closed. While it waits, status goes out as long as
// the stream lives.
func (s *session) finish(ctx context.Context, cause error) error {
	stop := ctx.Err() != nil
	switch {
	case stop:
		s.r.setState(Draining, "draining")
	case transient(cause):
		s.r.report(cause)
	default:
		s.r.setState(Draining, cause.Error())
	}
	s.rightful = fenced(cause) && !s.r.superseded(ctx, s) // looked at before the slot is free for a standby
	s.watermark.Suspend()
	// Who passes over a row passes over what comes before it, so that has to be published whatever time it takes.
	outlast := !stop && (transient(cause) || ofARow(cause))
	began := time.Now()
	drain, cancel := s.r.drainContext(ctx, outlast)
	defer cancel()

	if s.stream.Gone() || outlast {
		s.close() // a wait for Kafka without end must not hold the server: it may want to shut down
	}
	var flushed error
	s.await(drain, func() { flushed = s.flush(drain) })
	late, waited := drain.Err() != nil, time.Since(began).Round(time.Millisecond)
	settling := drain // what a stop has left of its time
	if outlast && !late && !transient(cause) {
		settling, cancel = s.r.drainContext(ctx, false)
		defer cancel()
	}
	s.await(settling, func() { s.settle(settling, cause) })
	s.close()

	switch {
	case ctx.Err() != nil && (late || flushed != nil && transient(flushed)):
		return &Halt{Err: fmt.Errorf("%w: %d events were still in flight after %s and will be sent again",
			ErrDrain, s.out.Stats().Events, waited)}
	case stop && flushed == nil && transient(cause):
		return nil
	case flushed != nil && transient(cause):
		return flushed // the sink failed meanwhile
	case ofARow(cause) && flushed != nil:
		return flushed // what was on its way comes before the row that ended the session: refused, or to be sent again
	default:
		return cause
	}
}

// flush waits for what is in flight, and goes on to store how far that is: the wait may be cut short.
func (s *session) flush(ctx context.Context) error {
	keeping, stop := context.WithCancel(ctx)
	var keeper sync.WaitGroup
	keeper.Go(func() {
		// What it could not store, settle tries again.
		_ = s.keep(keeping)
	})
	defer keeper.Wait()
	defer stop()
	return s.out.Flush(ctx)
}

// await runs f and keeps the stream alive meanwhile.
func (s *session) await(ctx context.Context, f func()) {
	done := make(chan struct{})
	go func() { defer close(done); f() }()
	if !s.closed && !s.stream.Gone() {
		// Whatever it returns: what counts now is that f ends.
		_ = s.stream.Wait(ctx, done)
	}
	<-done
}

// close ends the stream once.
func (s *session) close() {
	if s.closed {
		return
	}
	s.closed = true
	if s.stream.Gone() {
		s.stream.Close()
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Second)
	defer cancel()
	if err := s.stream.Stop(ctx); err != nil {
		s.log.Debug().Err(err).Msg("the stream did not end in order; the stored position counts")
	}
}

func signal(c chan<- struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}
