package cdc

import (
	"io"
	"time"
)

// gulp is the pause between two drains of the socket while the stream is behind. It never adds latency that matters:
// what is read then was committed longer ago than that.
const gulp = 10 * time.Millisecond

// shortRead is the size of a read, in bytes, below which the socket counts as drained. The server goes on filling it while
// we work on what was read, so a socket that is being filled fast gives more than that each time.
const shortRead = 32 << 10

// pacedReader reads the socket. Caught up it reads at once. Behind, it reads until the socket is empty and then lets it
// fill for a moment: the walsender appends to its buffer while the socket is full, and sends row by row while it is not.
type pacedReader struct {
	conn    io.Reader
	behind  bool // set by the goroutine that reads
	drained bool
	bytes   uint64    // that were read
	at      time.Time // of the last read, or look at the clock
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
