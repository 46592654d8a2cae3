package sim

import (
	"encoding/binary"
	"net"
	"sync/atomic"
	"time"

	"github.com/jackc/pgx/v5/pgproto3"

	"github.com/walpost/walpost/cdc"
)

// walsender streams the WAL to one relay.
type walsender struct {
	p     *postgres
	conn  net.Conn
	b     *pgproto3.Backend
	pid   uint32
	life  int     // of the server
	pos   cdc.LSN // transactions whose commit record is behind it are still to be sent
	sent  cdc.LSN // everything before it was sent
	ended chan struct{}
	ping  chan struct{} // the relay asked for a reply
	done  atomic.Bool   // the relay ended the stream
	heard atomic.Int64  // when the relay last said anything, Unix time in microseconds
	flush atomic.Uint64
}

func (s *walsender) run() {
	s.b.Send(&pgproto3.CopyBothResponse{})
	if s.b.Flush() != nil {
		return
	}
	s.heard.Store(time.Now().UnixMicro())
	go s.receive()
	go s.watch()
	s.stream()
	// Ends the goroutine that receives.
	_ = s.conn.Close()
	<-s.ended
}

// watch ends a stream whose relay says nothing, also while a send is blocked.
func (s *walsender) watch() {
	ticker := time.NewTicker(walSenderTimeout / 6)
	defer ticker.Stop()
	for {
		select {
		case <-s.ended:
			return
		case <-ticker.C:
			if time.Since(time.UnixMicro(s.heard.Load())) > walSenderTimeout {
				_ = s.conn.Close()
			}
		}
	}
}

// receive takes the statuses of the relay.
func (s *walsender) receive() {
	defer close(s.ended)
	for {
		m, err := s.b.Receive()
		if err != nil {
			return
		}
		s.heard.Store(time.Now().UnixMicro())
		switch m := m.(type) {
		case *pgproto3.CopyData:
			if len(m.Data) != 34 || m.Data[0] != 'r' {
				return
			}
			flushed := cdc.LSN(binary.BigEndian.Uint64(m.Data[9:]))
			if s.p.lived() == s.life {
				s.p.onStatus(flushed)
			}
			s.p.confirm(flushed, s.life)
			s.flush.Store(uint64(flushed))
			if m.Data[33] == 1 {
				signal(s.ping)
			}
		case *pgproto3.CopyDone:
			s.done.Store(true)
			signal(s.ping)
		default:
			return
		}
	}
}

// stream sends what there is, until the relay or the server wants it to end.
func (s *walsender) stream() {
	relation := true
	for !s.over() {
		s.p.mu.Lock()
		changed, end := s.p.changed, s.p.end
		s.p.mu.Unlock()
		if t, ok := s.p.after(s.pos); ok {
			if !s.transaction(t, relation) {
				return
			}
			relation, s.pos, s.sent = false, t.end, t.end
			continue
		}
		moved := end > s.sent
		s.pos, s.sent = max(s.pos, end), max(s.sent, end)
		if s.ending() && cdc.LSN(s.flush.Load()) >= s.sent {
			s.b.Send(&pgproto3.CommandComplete{CommandTag: []byte("COPY 0")})
			_ = s.b.Flush()
			return
		}
		if moved || s.ending() {
			if !s.keepalive(s.ending() || s.p.chance(10)) {
				return
			}
		}
		if !s.wait(changed) {
			return
		}
	}
}

// wait sleeps until there is something to do.
func (s *walsender) wait(changed <-chan struct{}) bool {
	pause := walSenderTimeout / 2
	if s.ending() {
		pause = 20 * time.Millisecond
	}
	timer := time.NewTimer(pause)
	defer timer.Stop()
	select {
	case <-changed:
	case <-s.ended:
		return false
	case <-s.ping:
		return s.done.Load() || s.keepalive(false)
	case <-timer.C:
		return s.keepalive(true)
	}
	return true
}

// transaction sends one, perhaps with keepalives inside.
func (s *walsender) transaction(t txn, relation bool) bool {
	for i, m := range t.messages(relation) {
		if s.over() {
			return !s.done.Load()
		}
		s.b.Send(&pgproto3.CopyData{Data: m})
		if i > 0 && s.p.chance(20) && !s.keepalive(s.p.chance(2)) {
			return false
		}
		if s.b.Flush() != nil {
			return false
		}
	}
	return true
}

func (s *walsender) keepalive(reply bool) bool {
	b := binary.BigEndian.AppendUint64([]byte{'k'}, uint64(s.sent))
	b = binary.BigEndian.AppendUint64(b, uint64(cdc.ServerTime(time.Now())))
	if reply {
		b = append(b, 1)
	} else {
		b = append(b, 0)
	}
	s.b.Send(&pgproto3.CopyData{Data: b})
	return s.b.Flush() == nil
}

func (s *walsender) ending() bool {
	s.p.state.Lock()
	defer s.p.state.Unlock()
	return s.p.ending
}

// over reports whether the stream should end, and answers the relay that has ended it.
func (s *walsender) over() bool {
	select {
	case <-s.ended:
		return true
	default:
	}
	if s.done.Load() {
		s.b.Send(&pgproto3.CopyDone{})
		s.b.Send(&pgproto3.CommandComplete{CommandTag: []byte("COPY 0")})
		s.b.Send(&pgproto3.ReadyForQuery{TxStatus: 'I'})
		_ = s.b.Flush()
		return true
	}
	return false
}

// chance is true once in so many calls.
func (p *postgres) chance(once int) bool {
	p.state.Lock()
	defer p.state.Unlock()
	return p.random.IntN(once) == 0
}
