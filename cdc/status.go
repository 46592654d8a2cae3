package cdc

import (
	"context"
	"encoding/binary"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5/pgproto3"
)

const (
	// maxStatusInterval is the longest time between two status messages.
	maxStatusInterval = 10 * time.Second
	// silence is how long a server may say nothing although every status asks it for a reply and no
	// inspection finds its walsender busy.
	silence = 45 * time.Second
)

// service does what is due between two reads: it reads the clock, gives up a silent server, checks
// ctx, and sends a status. The order matters: it sets the deadline first, so that an interrupt that
// comes later ends the read that follows.
func (s *Stream) service(ctx context.Context) error {
	now := time.Now()
	s.c.reader.at = now
	// Part of a message counts, too: a large one takes long on a slow link.
	if read := s.c.reader.bytes; read != s.bytes {
		s.heard, s.bytes = now, read
	}
	if quiet := s.quiet(now); quiet > s.silence {
		return &brokenError{what: fmt.Sprintf("Postgres has been silent for %s", quiet.Round(time.Second))}
	}
	lsn, next := s.Confirmed(), now.Add(s.interval)
	nothing := lsn == s.sent && !s.asked && now.Before(s.due)
	if nothing {
		next = s.due
	}
	// Once only: a second call would overwrite an interrupt that came in between.
	if err := s.conn.SetReadDeadline(next); err != nil {
		return &brokenError{"set a deadline", err}
	}
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	// Read again: the deadline has overwritten the interrupt of a position that came before it.
	if now := s.Confirmed(); now != lsn {
		lsn, nothing = now, false
	}
	if nothing {
		return nil
	}
	if err := s.sendStatus(now, lsn); err != nil {
		return err
	}
	s.sent, s.asked, s.due = lsn, false, now.Add(s.interval)
	return nil
}

// sendStatus sends a standby status update that names lsn as written, flushed and applied, but
// never past what was received. It asks for a reply if the server has been quiet.
func (s *Stream) sendStatus(now time.Time, lsn LSN) error {
	if lsn > s.Received() {
		return &StopError{
			What: fmt.Sprintf("bug: about to confirm %s, past %s, the furthest that was received", lsn, s.Received()),
			Hint: "please report this. Nothing was confirmed: a restart continues from the stored position",
		}
	}
	b := s.status[:0]
	b = append(b, 'r')
	for range 3 {
		b = binary.BigEndian.AppendUint64(b, uint64(lsn))
	}
	b = binary.BigEndian.AppendUint64(b, uint64(ServerTime(now)))
	reply := byte(0)
	if now.Sub(s.heard) >= s.interval/2 {
		reply = 1
		s.work.asked.CompareAndSwap(0, int64(now.Sub(s.work.start)))
	}
	b = append(b, reply)
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
