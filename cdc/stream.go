package cdc

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"os"
	"sync/atomic"
	"time"

	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgproto3"
)

// clockEvery is how many messages may pass before the stream reads the clock again.
const clockEvery = 64

// Stream is a running replication stream. Next, Wait, SetBehind, Stop and Close belong to one
// goroutine, the reader. Any goroutine may call the other methods.
//
// The reader also writes. Between two reads it sends a status when one is due, when the server asks
// for it, or when Confirm has moved the position. A read may block for as long as the server is
// quiet, so Confirm wakes the reader: from a read by a read deadline in the past, from Wait by the
// channel wake. The reader sets its own deadline before it checks what there is to do. A wake-up
// that comes after the check then ends the read that follows, and none is lost.
type Stream struct {
	c        *Conn
	conn     net.Conn
	frontend *pgproto3.Frontend
	interval time.Duration // the longest time between two status messages
	silence  time.Duration // see the constant

	// Shared. Confirm moves confirm forward and sends to wake; the reader alone writes the rest.
	confirm  atomic.Uint64 // the position to confirm
	wake     chan struct{} // ends Wait early
	received atomic.Uint64 // the furthest end that the server has sent
	gone     atomic.Bool   // the connection or the stream has ended by an error of its own

	// What the next status needs. The reader's.
	sent   LSN       // the position that the last status named
	due    time.Time // when the next status is due
	asked  bool      // the server wants a status at once
	status []byte    // the message, reused

	// Signs of life from the server. The reader's, as of the last time it read the clock; work is
	// shared with the goroutine that inspects.
	messages uint      // messages since then
	heard    time.Time // when the server last said anything
	serviced time.Time // when service last ran
	bytes    uint64    // bytes read from the socket until then
	work     workload  // what inspections have found the walsender to do
}

func newStream(c *Conn, from LSN) *Stream {
	s := &Stream{
		c: c, conn: c.pg.Conn(), frontend: c.pg.Frontend(),
		interval: maxStatusInterval, silence: silence,
		wake:  make(chan struct{}, 1),
		sent:  from,
		heard: time.Now(),
	}
	if c.timeout > 0 {
		s.interval = min(s.interval, c.timeout/3)
	}
	s.work.start, s.work.unanswered = s.heard, -1
	s.confirm.Store(uint64(from))
	s.received.Store(uint64(from))
	return s
}

// PID is the Postgres process that serves the stream.
func (s *Stream) PID() uint32 { return s.c.pg.PID() }

// Gone reports whether the stream has ended by an error of its own, so that no status can be sent
// any more.
func (s *Stream) Gone() bool { return s.gone.Load() }

// Received returns the furthest end that the server has sent.
func (s *Stream) Received() LSN { return LSN(s.received.Load()) }

// Confirmed returns the position that the stream confirms.
func (s *Stream) Confirmed() LSN { return LSN(s.confirm.Load()) }

// Confirm tells the server with the next status, which it hastens, that everything before lsn is
// published. The position never goes back.
func (s *Stream) Confirm(lsn LSN) {
	for {
		old := s.confirm.Load()
		if uint64(lsn) <= old {
			return
		}
		if s.confirm.CompareAndSwap(old, uint64(lsn)) {
			break
		}
	}
	s.interrupt()
}

// interrupt wakes the reader.
func (s *Stream) interrupt() {
	// A closed connection needs no waking.
	_ = s.conn.SetReadDeadline(time.Unix(1, 0))
	select {
	case s.wake <- struct{}{}:
	default:
	}
}

// SetBehind says whether the stream is behind, so that reading in gulps is the faster way.
//
// Not over TLS: a read returns at most one TLS record, so every read would look like a drained
// socket, and pause.
func (s *Stream) SetBehind(behind bool) {
	_, encrypted := s.conn.(*tls.Conn)
	s.c.reader.behind = behind && !encrypted
}

// Next returns the next message; its bytes are borrowed until the next call. It sends a status when
// one is due. An error that is not [Transient] needs an operator. When ctx ends, the error is its
// cause.
func (s *Stream) Next(ctx context.Context) (Message, error) {
	m, err := s.next(ctx)
	s.noteGone(ctx, err)
	return m, err
}

func (s *Stream) noteGone(ctx context.Context, err error) {
	if err != nil && ctx.Err() == nil {
		s.gone.Store(true)
	}
}

func (s *Stream) next(ctx context.Context) (Message, error) {
	for {
		if s.messages%clockEvery == 0 || s.asked {
			if err := s.service(ctx); err != nil {
				return Message{}, err
			}
		}
		s.messages++
		raw, err := s.frontend.Receive()
		if err != nil {
			if !errors.Is(err, os.ErrDeadlineExceeded) {
				return Message{}, &brokenError{"read from Postgres", err}
			}
			s.messages = 0
			continue
		}
		switch m := raw.(type) {
		case *pgproto3.CopyData:
			return s.parse(m.Data)
		case *pgproto3.ErrorResponse:
			return Message{}, s.c.cfg.serverError(pgconn.ErrorResponseToPgError(m))
		case *pgproto3.NoticeResponse:
			n := pgconn.Notice(*pgconn.ErrorResponseToPgError((*pgproto3.ErrorResponse)(m)))
			if s.c.raisesDoubt(&n) {
				return Message{}, s.c.cfg.warningError(&n)
			}
		case *pgproto3.CopyDone, *pgproto3.CommandComplete, *pgproto3.ReadyForQuery:
			return Message{}, &brokenError{what: "Postgres ended the stream"}
		case *pgproto3.ParameterStatus:
		default:
			return Message{}, &StopError{
				What: fmt.Sprintf("unexpected message %T on the replication stream", raw),
				Hint: directHint,
			}
		}
	}
}

// Wait reads nothing until room receives, so that TCP holds the walsender back. It sends a status
// when one is due.
func (s *Stream) Wait(ctx context.Context, room <-chan struct{}) error {
	defer func() {
		s.heard = time.Now() // nothing was heard because nothing was read
		s.c.reader.at = s.heard
	}()
	for {
		if err := s.service(ctx); err != nil {
			s.noteGone(ctx, err)
			return err
		}
		timer := time.NewTimer(time.Until(s.due))
		select {
		case <-room:
			timer.Stop()
			return nil
		case <-ctx.Done():
			timer.Stop()
			return context.Cause(ctx)
		case <-s.wake:
			timer.Stop()
		case <-timer.C:
		}
		s.heard = time.Now()
	}
}
