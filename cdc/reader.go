package cdc

import (
	"io"
	"time"
)

// gulp is the pause between two drains of the socket while the stream is behind. It adds no latency
// that matters: what the stream reads then was committed longer ago than that.
const gulp = 10 * time.Millisecond

// shortRead is the size of a read, in bytes, below which the socket counts as drained. The server
// goes on filling it while we work on what we read, so a fast server gives more than that each
// time.
const shortRead = 32 << 10

// pacedReader reads the socket. As long as the stream keeps up it reads at once. Behind, it reads
// until the socket is empty and then lets it fill for a moment: a walsender that finds the socket
// full appends to its buffer, and one that does not sends row by row.
type pacedReader struct {
	conn    io.Reader
	behind  bool // set by the goroutine that reads
	drained bool
	bytes   uint64    // bytes read so far
	at      time.Time // when the reader last read the socket or the clock
}

func (r *pacedReader) Read(p []byte) (int, error) {
	if r.behind && r.drained {
		time.Sleep(gulp)
	}
	n, err := r.conn.Read(p)
	r.bytes += uint64(n)
	r.at = time.Now()
	r.drained = n < min(len(p), shortRead)
	return n, err
}
