package relay

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"time"

	"github.com/rs/zerolog"

	"github.com/walpost/walpost/cdc"
	"github.com/walpost/walpost/checkpoint"
	"github.com/walpost/walpost/decoder"
	"github.com/walpost/walpost/sink"
)

// catchUpAge: a transaction that is sent this long after its commit means that the stream is
// catching up. Both times are the server's.
const catchUpAge = 20 * time.Millisecond

// session is one replication connection and what belongs to it. Four goroutines share it: the pump,
// which calls the others' functions once they have ended; the keeper; the watcher; and one that
// pings the brokers.
type session struct {
	handover // what it leaves to the next session

	r       *Relay
	log     zerolog.Logger
	history cdc.History

	// Of the pump, which reads the stream, decodes, and produces. The watermark and the sink are
	// safe for all.
	stream      *cdc.Stream
	decoder     *decoder.Decoder
	watermark   *checkpoint.Watermark
	start       checkpoint.Position // what is before it was published by another session
	moved       int                 // rows that moved to another partition
	movedNotice sink.Notice
	unfit       *unfit // why the settings do not fit a table as it is now; nil = they do
	closed      bool   // the stream was closed by finish
	heldSlot    bool   // fenced by the brokers alone: no other relay had the slot at the end

	// Of the keeper, and of finish after it: the positions that go to the state topic. Each carries
	// the least timeline and the generation of the start.
	lastStored checkpoint.Position
	passed     uint64 // how many marks with events lie before lastStored
	timeline   uint32
	generation uint32
	saving     atomic.Pointer[time.Time] // since when a position is being stored; nil = none is

	// Of the watcher, and of finish after it: inspections, and what the log says again while it
	// lasts.
	inspector      cdc.Inspector
	pings          pings
	inspectNotice  sink.Notice
	stallNotice    sink.Notice
	decodingNotice sink.Notice
	uninspected    atomic.Pointer[inspectFailure] // why the slot cannot be inspected; nil = it can
	explained      atomic.Pointer[string]         // why the brokers keep events waiting; nil = not known

	// A position goes back through confirmable: the keeper tells it what is stored, the watcher
	// what is verified.
	confirmable confirmable

	// Wake-ups. Each channel holds one, and whoever finds it full has nothing to add.
	storeNow   chan struct{} // the keeper: the server asks for our position, or the in-flight bound is reached
	inspectNow chan struct{} // the watcher
	idle       atomic.Bool   // the watcher inspects every ten seconds, until wake
	wake       chan struct{} // the watcher: an event is in flight, or a position waits to be confirmed
}

func (r *Relay) newSession(h handover) *session {
	return &session{
		handover: h, r: r, log: r.log,
		storeNow: make(chan struct{}, 1), inspectNow: make(chan struct{}, 1), wake: make(chan struct{}, 1),
	}
}

// session connects, resumes, streams, and ends in order. It returns what the next one needs, and
// how it ended.
func (r *Relay) session(ctx context.Context, h handover) (handover, outcome) {
	began := time.Now()
	s := r.newSession(h)
	err := s.resume(ctx)
	var superseded bool
	if err == nil {
		s.said.outage.End()
		r.streaming(s)
		err = s.finish(ctx, s.run(ctx))
		superseded = s.superseded(ctx, err)
		s.inspector.Close()
	}
	s.release(r.cfg.ExactlyOnce)
	return s.handover, outcome{
		failure: classify(err), stopped: ctx.Err() != nil, superseded: superseded, long: time.Since(began) > longPause,
	}
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
	if s.unfit != nil {
		beside.Go(func() { cancel(s.refuse(ctx)) })
	}
	beside.Go(func() {
		select {
		case <-s.out.Failed():
			cancel(s.out.Err())
		case <-ctx.Done():
		}
	})
	return s.pump(ctx)
}

// pump is the relay: it reads the stream, decodes it in place, produces its events and keeps count
// of them. Everything that it calls returns at once, except Next and Wait, which answer the server
// meanwhile.
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
			s.stream.SetBehind(msg.ServerTime-change.CommitTime > catchUpAge.Microseconds())
		case decoder.Insert:
			if s.start.Published(cdc.LSN(txn.Commit), change.Event.Index) {
				continue
			}
			txn.Read = msg.Read
			mark := s.watermark.Add(change.Event.Index, sink.Size(change.Event))
			if err := s.out.Produce(change.Event, txn, mark, s.watermark.Reached()); err != nil {
				return err
			}
			s.wakeWatcher()
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
	if errors.As(err, &bad) && bad.Binary && !s.text {
		s.text = true
		s.log.Info().Err(err).Msg("the stream begins again in text form")
		return errStale
	}
	if bad != nil && s.presentRow(bad) {
		return s.unfit.stop
	}
	return err
}

// full reports whether the next event has to wait. Where the bound is reached, the keeper must not
// pause.
func (s *session) full() bool {
	if s.out.Held() {
		return true
	}
	if !s.watermark.Full() {
		return false
	}
	poke(s.storeNow)
	return true
}

// untilRoom asks again after each wait: Room may hold a word from before, and nothing may pass a
// held record.
func untilRoom(full func() bool, wait func() error) error {
	for full() {
		if err := wait(); err != nil {
			return err
		}
	}
	return nil
}

// keepalive takes the server's WAL end as an idle advance. If the server asks for our position, it is
// stored at once.
func (s *session) keepalive(msg cdc.Message) {
	s.watermark.Idle(msg.WALEnd)
	s.out.Reached(s.watermark.Reached())
	if !msg.ReplyRequested {
		return
	}
	poke(s.storeNow)
	if s.pings.storm(msg.WALEnd, time.Now()) {
		poke(s.inspectNow)
	}
}

func poke(c chan<- struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}
