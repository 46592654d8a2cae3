package cdc

import (
	"context"
	"crypto/tls"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"os"
	"sync/atomic"
	"time"

	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgproto3"
)

const (
	// maxStatusInterval is the longest time between two status messages.
	maxStatusInterval = 10 * time.Second
	// silence is how long a server may say nothing while every status asks it for a reply, and no
	// inspection finds its walsender busy.
	silence = 45 * time.Second
	// clockEvery is how many messages may pass between two looks at the clock.
	clockEvery = 64
)

// Kind says what a Message is.
type Kind uint8

// The kinds of messages on a replication stream.
const (
	Data      Kind = iota // bytes of the output plugin
	Keepalive             // the server's WAL end, perhaps with the request for a reply
)

// Message is one message of the stream.
type Message struct {
	Kind Kind
	// Data is the output plugin's message; borrowed, valid until the next call of Next or Stop.
	Data []byte
	// WALEnd is, of a keepalive, the LSN up to which everything was sent.
	WALEnd LSN
	// ServerTime is when the server sent the message, in microseconds since 2000-01-01 by its own clock.
	ServerTime int64
	// Read is about when it was taken in hand, by our own clock: after the read that brought it, and after any wait.
	Read time.Time
	// ReplyRequested says that the server wants a status at once. Next has already seen to it.
	ReplyRequested bool
}

// Stream is a running replication stream. Next, Wait, Pace, Stop and Close belong to one goroutine; Confirm may be
// called by another.
type Stream struct {
	c        *Conn
	conn     net.Conn
	frontend *pgproto3.Frontend
	interval time.Duration // of status messages
	silence  time.Duration // see the constant

	confirm atomic.Uint64 // the position to confirm
	wake    chan struct{} // wakes Wait

	received atomic.Uint64 // the furthest end that the server has sent; written by the goroutine that reads

	sent     LSN       // the position that the last status named
	due      time.Time // when the next status is
	heard    time.Time // when the server last said anything, as of the last look at the clock
	serviced time.Time // when service last ran
	asked    bool      // the server wants a status at once
	read     uint64    // bytes read, as of the last look
	data     uint64    // messages of data, as of then
	messages uint
	gone     atomic.Bool // the connection or the stream ended
	status   []byte
	work     workload // what inspections have found the walsender to do
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
	s.work.start, s.work.deaf = s.heard, -1
	s.confirm.Store(uint64(from))
	s.received.Store(uint64(from))
	return s
}

// Confirm tells the server, soon, that everything before lsn is published. It never goes back. Any goroutine may call it.
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

// PID is the process of Postgres that serves the stream.
func (s *Stream) PID() uint32 { return s.c.pg.PID() }

// Confirmed returns the position that the stream confirms.
func (s *Stream) Confirmed() LSN { return LSN(s.confirm.Load()) }

// interrupt wakes the goroutine that reads. A deadline in the past ends its read; it sets a new one before it looks
// at what there is to do, so a wake-up is never lost.
func (s *Stream) interrupt() {
	// A closed connection needs no waking.
	_ = s.conn.SetReadDeadline(time.Unix(1, 0))
	select {
	case s.wake <- struct{}{}:
	default:
	}
}

// Pace says whether the stream is behind the present, so that reading in gulps is the faster way.
//
// Not over TLS: a read brings one record of it at most, so each would count as drained, and pause.
func (s *Stream) Pace(behind bool) {
	_, encrypted := s.conn.(*tls.Conn)
	s.c.reader.behind = behind && !encrypted
}

// Next returns the next message; its bytes are borrowed until the next call. It sends status when it is due. An error
// that is not [Transient] needs an operator; when ctx ends, it is the cause of that.
func (s *Stream) Next(ctx context.Context) (Message, error) {
	m, err := s.next(ctx)
	s.note(ctx, err)
	return m, err
}

// Gone reports whether the stream has ended by an error of its own, so that no status can be sent any more. Any
// goroutine may ask.
func (s *Stream) Gone() bool { return s.gone.Load() }

func (s *Stream) note(ctx context.Context, err error) {
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
			var refused *pgconn.PgError
			if errors.As(pgconn.ErrorResponseToPgError(m), &refused) {
				return Message{}, s.c.cfg.serverError(refused)
			}
			return Message{}, pgconn.ErrorResponseToPgError(m)
		case *pgproto3.NoticeResponse:
			n := pgconn.Notice(*pgconn.ErrorResponseToPgError((*pgproto3.ErrorResponse)(m)))
			if s.c.doubtful(&n) {
				return Message{}, s.c.cfg.warningError(&n)
			}
		case *pgproto3.CopyDone, *pgproto3.CommandComplete, *pgproto3.ReadyForQuery:
			return Message{}, &brokenError{what: "Postgres ended the stream"}
		case *pgproto3.ParameterStatus:
		default:
			return Message{}, &StopError{
				What: fmt.Sprintf("unexpected message %T on the replication stream", raw),
				Hint: "is this address really Postgres, or something between that speaks its protocol?",
			}
		}
	}
}

// parse reads the envelope of the streaming replication protocol.
func (s *Stream) parse(b []byte) (Message, error) {
	switch {
	case len(b) >= 25 && b[0] == 'w':
		s.reached(binary.BigEndian.Uint64(b[1:]))
		s.work.data++
		return Message{Kind: Data, ServerTime: int64(binary.BigEndian.Uint64(b[17:])), Read: s.c.reader.at, Data: b[25:]}, nil
	case len(b) == 18 && b[0] == 'k':
		m := Message{
			Kind: Keepalive, WALEnd: LSN(binary.BigEndian.Uint64(b[1:])),
			ServerTime: int64(binary.BigEndian.Uint64(b[9:])), Read: s.c.reader.at, ReplyRequested: b[17] == 1,
		}
		s.reached(uint64(m.WALEnd))
		s.asked = s.asked || m.ReplyRequested
		return m, nil
	default:
		return Message{}, &StopError{
			What: fmt.Sprintf("a message of %d bytes on the replication stream is neither data nor a keepalive", len(b)),
			Hint: "is there something between walpost and Postgres that changes the protocol?",
		}
	}
}

func (s *Stream) reached(lsn uint64) {
	if lsn > s.received.Load() {
		s.received.Store(lsn)
	}
}

// Received returns the furthest end that the server has sent.
func (s *Stream) Received() LSN { return LSN(s.received.Load()) }

// Wait reads nothing until room receives, so that TCP holds the walsender back. It sends status when it is due.
func (s *Stream) Wait(ctx context.Context, room <-chan struct{}) error {
	defer func() {
		s.heard = time.Now() // nothing was heard because nothing was read
		s.c.reader.at = s.heard
	}()
	for {
		if err := s.service(ctx); err != nil {
			s.note(ctx, err)
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

// service does what is due besides reading: the status, and a look at the clock and at ctx. The order matters: the
// deadline is set first, so that an interrupt that comes later ends the read that follows.
func (s *Stream) service(ctx context.Context) error {
	now := time.Now()
	s.c.reader.at = now
	if read := s.c.reader.bytes; read != s.read { // a part of a message counts: a large one takes long on a slow link
		s.heard, s.read = now, read
	}
	if quiet := s.quiet(now); quiet > s.silence {
		return &brokenError{what: fmt.Sprintf("Postgres has been silent for %s", quiet.Round(time.Second))}
	}
	lsn, next := LSN(s.confirm.Load()), now.Add(s.interval)
	nothing := lsn == s.sent && !s.asked && now.Before(s.due)
	if nothing {
		next = s.due
	}
	// Once: a second call would overwrite an interrupt that came in between.
	if err := s.conn.SetReadDeadline(next); err != nil {
		return &brokenError{"set a deadline", err}
	}
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	// Looked at again: a position that came before the deadline was set has had its interrupt overwritten.
	if now := LSN(s.confirm.Load()); now != lsn {
		lsn, nothing = now, false
	}
	if nothing {
		return nil
	}
	if lsn > s.Received() {
		return &StopError{
			What: fmt.Sprintf("bug: about to confirm %s, past %s, the furthest that was received", lsn, s.Received()),
			Hint: "please report this; nothing was confirmed, and a restart goes on from the stored position",
		}
	}
	if err := s.sendStatus(now, lsn); err != nil {
		return err
	}
	s.sent, s.asked, s.due = lsn, false, now.Add(s.interval)
	return nil
}

// sendStatus sends a standby status update that names lsn as written, flushed and applied, and asks for a reply if the
// server has been quiet.
func (s *Stream) sendStatus(now time.Time, lsn LSN) error {
	b := s.status[:0]
	b = append(b, 'r')
	for range 3 {
		b = binary.BigEndian.AppendUint64(b, uint64(lsn))
	}
	b = binary.BigEndian.AppendUint64(b, uint64(ServerTime(now)))
	probe := byte(0)
	if now.Sub(s.heard) >= s.interval/2 {
		probe = 1
		s.work.asked.CompareAndSwap(0, int64(now.Sub(s.work.start)))
	}
	b = append(b, probe)
	s.status = b
	if err := s.conn.SetWriteDeadline(now.Add(silence)); err != nil {
		return &brokenError{"set a deadline", err}
	}
	s.frontend.Send(&pgproto3.CopyData{Data: s.status})
	if err := s.frontend.Flush(); err != nil {
		return &brokenError{"send status to Postgres", err}
	}
	return nil
}

// epoch is the zero of Postgres' clock.
var epoch = time.Date(2000, 1, 1, 0, 0, 0, 0, time.UTC)

// ServerTime returns t in Postgres' form: microseconds since 2000-01-01.
func ServerTime(t time.Time) int64 { return t.Sub(epoch).Microseconds() }

// Time is the reverse of ServerTime.
func Time(micros int64) time.Time { return epoch.Add(time.Duration(micros) * time.Microsecond) }
