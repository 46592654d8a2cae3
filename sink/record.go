package sink

import (
	"sync/atomic"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/walpost/walpost/checkpoint"
	"github.com/walpost/walpost/decoder"
)

const (
	// flightOverhead is what a flight takes besides its bytes, about.
	flightOverhead = 512
	// inlineHeaders is how many record headers need no allocation of their own: the four of the
	// contract and some.
	inlineHeaders = 6
	// maxInterned bounds the header names that are kept as strings.
	maxInterned = 1024
	// posLength is the length of TTTTTTTT-LLLLLLLLLLLLLLLL-IIIIIIII.
	posLength = 8 + 1 + 16 + 1 + 8
)

// Mark is what a confirmed event is reported to.
type Mark interface{ Done() }

// Transaction is what an event's transaction adds to its record.
type Transaction struct {
	Timeline uint32    // on which the commit LSN lies
	Commit   uint64    // LSN of the commit record
	Time     int64     // when it committed, in microseconds since 2000-01-01, by the server's clock
	Read     time.Time // when the event was read, by our own clock: the record's timestamp
}

// flight is one event in flight: its record, and the mark to tell. The client may read the context
// of a record after its promise, so the record does not carry the flight in it.
type flight struct {
	// Written by the builder, and read only.
	sink    *Sink
	promise func(*kgo.Record, error) // made with the memory, so that no event needs a closure
	record  kgo.Record               // belongs to the client from Produce until its promise
	headers [inlineHeaders]kgo.RecordHeader
	topic   *topic
	mark    Mark
	commit  uint64 // LSN of its transaction's commit record
	time    int64  // as Transaction.Time
	index   uint32
	size    int64

	// Written before it is sent.
	barrier barrier
	pos     checkpoint.Position // how far the stream is with it; only with exactly once

	written atomic.Bool // the brokers have it; only with exactly once

	// Its memory, see free.
	slab  *slab
	arena *arena // of its bytes and those of others; nil = they are large
	block *block // of its bytes alone; nil = they are small, or too large to be used again
}

// large reports whether the record may be too large for its topic.
func (f *flight) large() bool { return f.size > f.topic.limit.Load()-2*batchOverhead }

// alone reports whether the event is in a batch, or in a Kafka transaction, of its own.
func (f *flight) alone() bool { return f.barrier == untilPublished }

// before reports whether the event comes before another one in the stream.
func (f *flight) before(e *EventError) bool {
	return f.commit < e.Commit || f.commit == e.Commit && f.index < e.Index
}

// builder makes flights out of events. One goroutine uses it.
type builder struct {
	sink     *Sink // of its flights
	source   []byte
	arena    *arena
	slab     *slab
	interned map[string]string
	leftOut  map[string]bool // names of the rows' headers that are left out, as the log has said
}

// Size is what an event takes while it is in flight, in bytes.
func Size(e *decoder.Event) int64 { return int64(payload(e)) + flightOverhead }

// payload is how many bytes of an event are copied.
func payload(e *decoder.Event) int {
	return len(e.Key) + len(e.Payload) + len(e.ID) + len(e.Type) + posLength + len(e.Headers)
}

// build copies what Kafka needs of the event. The bytes of the record stay as they are until the
// flight is freed.
func (b *builder) build(e *decoder.Event, txn Transaction, t *topic, mark Mark) (*flight, error) {
	f := b.flight()
	f.topic, f.mark, f.commit, f.time, f.index = t, mark, txn.Commit, txn.Time, e.Index
	f.size = Size(e)
	space := b.take(f, payload(e))

	put := func(v []byte) []byte {
		n := copy(space, v)
		v, space = space[:n:n], space[n:]
		return v
	}
	r := &f.record
	r.Topic, r.Key, r.Timestamp = t.name, put(e.Key), txn.Read
	r.Partition = -1      // the client chooses one
	if e.Payload != nil { // NULL is a tombstone; an empty payload is a value
		r.Value = put(e.Payload)
	}
	h := append(f.headers[:0], kgo.RecordHeader{Key: "id", Value: put(e.ID)})
	if e.HasType {
		header := kgo.RecordHeader{Key: "type"}
		if e.Type != nil {
			header.Value = put(e.Type)
		}
		h = append(h, header)
	}
	pos := appendPos(space[:0:posLength], txn, e.Index)
	space = space[posLength:]
	h = append(h, kgo.RecordHeader{Key: "source", Value: b.source}, kgo.RecordHeader{Key: "pos", Value: pos})
	if e.Headers != nil {
		var leftOut []string
		var err error
		if h, leftOut, err = appendHeaders(h, e.Headers, space, b.intern); err != nil {
			return nil, err
		}
		if leftOut != nil {
			b.sayLeftOut(e, leftOut)
		}
	}
	r.Headers = h
	return f, nil
}

// intern returns a header's name as a string; names repeat.
func (b *builder) intern(name []byte) string {
	if s, ok := b.interned[string(name)]; ok {
		return s
	}
	s := string(name)
	if len(b.interned) < maxInterned {
		b.interned[s] = s
	}
	return s
}

const hexDigits = "0123456789ABCDEF"

// appendPos writes the position of an event: timeline, commit LSN and index, in hexadecimal of
// fixed width, so that it sorts as text.
func appendPos(b []byte, txn Transaction, index uint32) []byte {
	b = appendHex(b, uint64(txn.Timeline), 8)
	b = append(b, '-')
	b = appendHex(b, txn.Commit, 16)
	b = append(b, '-')
	return appendHex(b, uint64(index), 8)
}

func appendHex(b []byte, v uint64, digits int) []byte {
	for shift := 4 * (digits - 1); shift >= 0; shift -= 4 {
		b = append(b, hexDigits[v>>shift&0xF])
	}
	return b
}
