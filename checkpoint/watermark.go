package checkpoint

import (
	"sync"
	"sync/atomic"
	"time"
)

// segment is how many events of one transaction share a mark. A transaction of ten million rows becomes many marks, so
// that its progress can be stored while it streams, and its memory is that of what is in flight.
const segment = 1024

// alone is the size, in bytes, from which an event has a mark of its own: it may be refused as too large, and what was published
// before it shall not be published again when that is mended.
const alone = 64 << 10

// slab is how many marks are allocated at once.
const slab = 64

// Watermark knows which position is safe to confirm. It is one FIFO of marks in stream order; the position is the end
// of its contiguous finished prefix.
//
// It also bounds what is sent and not safe yet: everything behind the stored position, whatever the brokers have confirmed of
// it. That is what has to be kept in mind, and what a kill repeats.
//
// One goroutine, the reader of the stream, calls Begin, Add, Commit, Idle, Suspend and Full. Any goroutine calls Mark.Done,
// Position, Stored, Oldest and Moved.
type Watermark struct {
	// Of the reader alone.
	end     LSN       // where the stream is complete: the end of the last transaction or idle advance received
	commit  LSN       // the current transaction, or the one that an earlier session published in part
	rows    uint32    // row changes of it that have a mark, from the start of the transaction
	at      time.Time // when the current transaction committed
	inside  bool      // between Begin and Commit
	open    *Mark     // takes the next events of the current transaction; nil before its first
	events  int       // events that open has taken
	scratch []Mark
	limit   int64 // bytes
	added   int64 // bytes of all events
	full    bool  // the bound was reached, and a quarter of it is not free yet

	moved chan struct{}
	room  chan<- struct{}

	// The mutex is taken once a transaction by the reader and once a look by the keeper of the position, never by a
	// promise: Mark.Done is an atomic counter.
	mu     sync.Mutex
	queue  []*Mark
	done   Position
	passed uint64
	freed  int64 // bytes of the events before done

	safe atomic.Int64 // bytes of the events before the stored position
}

// Mark stands for events of one transaction that are in flight.
type Mark struct {
	w       *Watermark
	pending atomic.Int32 // events in flight, and one for the reader until it has sealed the mark
	pos     Position     // written by the reader before it seals; read only once pending is zero
	at      time.Time
	bytes   int64 // of its events
	idle    bool  // no event: an idle advance, or a transaction without rows for us
}

// NewWatermark returns a Watermark of a stream that starts at start. limit bounds the unconfirmed events, in bytes; room
// is told, without waiting for it, when a reader that found it full should ask again.
func NewWatermark(start Position, limit int64, room chan<- struct{}) *Watermark {
	return &Watermark{
		end: start.End, commit: start.Commit, rows: start.Rows,
		done:  start,
		limit: limit, room: room,
		moved: make(chan struct{}, 1),
	}
}

// Begin opens the transaction whose commit record starts at commit. It was committed at the given time.
func (w *Watermark) Begin(commit LSN, at time.Time) {
	if w.commit != commit {
		w.commit, w.rows = commit, 0
	}
	w.inside, w.at = true, at
}

// Add puts the event with this row index of the current transaction in flight and returns its mark; size is what it takes,
// in bytes. The caller calls Done of the mark once, when the brokers have confirmed the event, and never otherwise.
func (w *Watermark) Add(row uint32, size int64) *Mark {
	if w.open != nil && (w.events == segment || size >= alone || w.open.bytes+size > w.limit/8) { // what one mark holds is freed at once, or not at all
		w.Suspend()
	}
	w.ensureOpen()
	w.open.pending.Add(1)
	w.open.bytes += size
	w.added += size
	w.events++
	w.rows = row + 1
	return w.open
}

// Commit ends the current transaction; end is the start of the record after its commit record.
func (w *Watermark) Commit(end LSN) {
	empty := w.rows == 0
	w.inside, w.commit, w.rows = false, 0, 0
	if empty {
		w.advance(end)
		return
	}
	w.ensureOpen() // the bound may have closed the last one
	w.end = end
	w.seal(Position{End: end})
}

// Idle takes the WAL end of a keepalive: everything before it was received. It is ignored inside a transaction, where a
// keepalive says nothing about the rows to come.
func (w *Watermark) Idle(end LSN) {
	if !w.inside {
		w.advance(end)
	}
}

// Reached returns how far the stream has come, whatever is confirmed of it. For the goroutine that reads.
func (w *Watermark) Reached() Position { return Position{End: w.end, Commit: w.commit, Rows: w.rows} }

// Suspend closes the current transaction at the row it has reached: what was added of it can be finished, and is a position
// to go on from. A stream that broke off ends with it.
func (w *Watermark) Suspend() {
	if w.open != nil {
		w.seal(Position{End: w.end, Commit: w.commit, Rows: w.rows})
	}
}

// Full reports whether the events behind the stored position have reached the bound, and goes on to do so until a quarter of it
// is free. One event may exceed it alone.
func (w *Watermark) Full() bool {
	limit := w.limit
	if w.full {
		limit -= limit / 4
	}
	w.full = w.added-w.safe.Load() >= limit
	if w.full {
		w.Suspend() // a mark that still takes events would never free what it holds
	}
	return w.full
}

// Stored says that a position is stored, with the bytes that Position returned for it. Whoever found the bound reached is told
// afterwards; the word waits for a reader that is about to listen.
func (w *Watermark) Stored(freed int64) {
	w.safe.Store(freed)
	signal(w.room)
}

// Position returns the position that is safe to store and then to confirm, and how many marks with events lie before
// it: if that number has not changed, only idle advances have moved the position. freed is for Stored.
func (w *Watermark) Position() (pos Position, passed uint64, freed int64) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.pop()
	return w.done, w.passed, w.freed
}

// Oldest returns the commit time of the oldest transaction that is not wholly confirmed; ok is false if there is none.
func (w *Watermark) Oldest() (at time.Time, ok bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.pop()
	if len(w.queue) == 0 {
		return time.Time{}, false
	}
	return w.queue[0].at, true
}

// Moved receives after the position may have moved. It holds one signal, so nobody who waits for it misses a move.
func (w *Watermark) Moved() <-chan struct{} { return w.moved }

// Done says that the brokers confirmed one event of the mark. It never blocks.
func (m *Mark) Done() {
	if m.pending.Add(-1) == 0 {
		signal(m.w.moved)
	}
}

func signal(c chan<- struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

// advance moves the end of the stream forward without an event. Neighbours share one mark, so that an idle or empty
// stream needs no memory while a broker is away.
func (w *Watermark) advance(end LSN) {
	if end <= w.end {
		return
	}
	w.end = end
	pos := Position{End: end, Commit: w.commit, Rows: w.rows}
	w.mu.Lock()
	if n := len(w.queue); n > 0 && w.queue[n-1].idle {
		w.queue[n-1].pos = pos
	} else {
		m := w.newMark()
		m.idle, m.pos = true, pos
		w.queue = append(w.queue, m)
	}
	w.mu.Unlock()
	signal(w.moved)
}

// seal gives the open mark its position and drops the reader's own reference.
func (w *Watermark) seal(pos Position) {
	m := w.open
	w.open, w.events = nil, 0
	m.pos = pos
	m.Done()
}

// ensureOpen makes the mark that takes the next events of the current transaction.
func (w *Watermark) ensureOpen() {
	if w.open != nil {
		return
	}
	w.open = w.newMark()
	w.open.at = w.at
	w.open.pending.Store(1)
	w.mu.Lock()
	w.pop()
	w.queue = append(w.queue, w.open)
	w.mu.Unlock()
}

// pop takes the finished prefix off the queue. Called with the mutex held.
func (w *Watermark) pop() {
	for len(w.queue) > 0 && w.queue[0].pending.Load() == 0 {
		w.done = w.queue[0].pos
		if !w.queue[0].idle {
			w.passed++
		}
		w.freed += w.queue[0].bytes
		w.queue[0] = nil
		w.queue = w.queue[1:]
	}
}

func (w *Watermark) newMark() *Mark {
	if len(w.scratch) == 0 {
		w.scratch = make([]Mark, slab)
	}
	m := &w.scratch[0]
	w.scratch = w.scratch[1:]
	m.w = w
	return m
}
