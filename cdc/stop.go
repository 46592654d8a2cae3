package cdc

import (
	"context"
	"time"

	"github.com/jackc/pgx/v5/pgproto3"
)

// WatchContext makes the end of ctx interrupt a read that waits. The returned function ends the watch.
func (s *Stream) WatchContext(ctx context.Context) (stop func() bool) {
	return context.AfterFunc(ctx, s.interrupt)
}

// Stop ends the stream in order: the last status, then CopyDone, and what the server still sends is read and dropped
// until it has let go of the slot. Afterwards the Conn is closed. An error leaves nothing undone but the last status.
func (s *Stream) Stop(ctx context.Context) error {
	defer s.Close()
	deadline, ok := ctx.Deadline()
	if !ok {
		deadline = time.Now().Add(silence)
	}
	now := time.Now()
	lsn := min(LSN(s.confirm.Load()), s.Received())
	if err := s.sendStatus(now, lsn); err != nil {
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
