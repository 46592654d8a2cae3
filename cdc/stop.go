package cdc

import (
	"context"
	"time"

	"github.com/jackc/pgx/v5/pgproto3"
)

// WatchContext makes the end of ctx interrupt a read that blocks. The returned function ends the
// watch.
func (s *Stream) WatchContext(ctx context.Context) (stop func() bool) {
	return context.AfterFunc(ctx, s.interrupt)
}

// Stop ends the stream in order: it sends the last status and CopyDone, and discards what the
// server still sends until it has released the slot. Then it closes the Conn. After an error, only
// the last status may not have arrived.
func (s *Stream) Stop(ctx context.Context) error {
	defer s.Close()
	deadline, ok := ctx.Deadline()
	if !ok {
		deadline = time.Now().Add(silence)
	}
	if err := s.sendStatus(time.Now(), s.Confirmed()); err != nil {
		return err
	}
	s.frontend.Send(&pgproto3.CopyDone{})
	if err := s.frontend.Flush(); err != nil {
		return &brokenError{"end the stream", err}
	}
	if err := s.conn.SetReadDeadline(deadline); err != nil {
		return &brokenError{"set a deadline", err}
	}
	for {
		m, err := s.frontend.Receive()
		if err != nil {
			return &brokenError{"end the stream", err}
		}
		switch m.(type) {
		case *pgproto3.ReadyForQuery, *pgproto3.ErrorResponse:
			return nil
		}
	}
}

// Close drops the connection.
func (s *Stream) Close() { s.c.Close() }
