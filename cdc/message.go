package cdc

import (
	"encoding/binary"
	"fmt"
	"time"
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
	// Data is the output plugin's message. It is borrowed until the next call of Next or Stop.
	Data []byte
	// WALEnd is set in a keepalive: the server has sent everything before it.
	WALEnd LSN
	// ServerTime is when the server sent the message, in microseconds since 2000-01-01, by its own
	// clock.
	ServerTime int64
	// Read is about when we began to work on the message, by our own clock: after the read that
	// brought it, and after any wait.
	Read time.Time
	// ReplyRequested says that the server wants a status at once. Next takes care of it.
	ReplyRequested bool
}

// directHint helps where something other than Postgres answers.
const directHint = "connect to Postgres directly: something in between may change its protocol"

// parse reads the envelope of the streaming replication protocol.
func (s *Stream) parse(b []byte) (Message, error) {
	switch {
	case len(b) >= 25 && b[0] == 'w':
		s.reached(binary.BigEndian.Uint64(b[1:]))
		s.work.gotData = true
		return Message{
			Kind: Data, Data: b[25:],
			ServerTime: int64(binary.BigEndian.Uint64(b[17:])), Read: s.c.reader.at,
		}, nil
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
			What: fmt.Sprintf("a message of %d bytes on the replication stream is neither data nor a keepalive",
				len(b)),
			Hint: directHint,
		}
	}
}

func (s *Stream) reached(lsn uint64) {
	if lsn > s.received.Load() {
		s.received.Store(lsn)
	}
}

// epoch is the zero of Postgres' clock.
var epoch = time.Date(2000, 1, 1, 0, 0, 0, 0, time.UTC)

// ServerTime returns t in Postgres' form: microseconds since 2000-01-01.
func ServerTime(t time.Time) int64 { return t.Sub(epoch).Microseconds() }

// Time is the reverse of ServerTime.
func Time(micros int64) time.Time { return epoch.Add(time.Duration(micros) * time.Microsecond) }
