package checkpoint

import (
	"sync"
	"sync/atomic"
	"time"
)

const (
	// eventsPerMark is how many events of one transaction share a mark, at most. A transaction of
	// ten million rows becomes many marks, so that its progress can be stored while it streams, and
	// only what is in flight takes memory.
	eventsPerMark = 1024
	// largeEvent is the size, in bytes, from which an event has a mark of its own. The brokers may
	// refuse it as too large; once that is corrected, what was published before it must not be
	// published again.
	largeEvent = 64 << 10
	// marksPerSlab is how many marks are allocated at once.
	marksPerSlab = 64
)

// Watermark knows which position is safe to confirm. It is a FIFO of marks in stream order; the
// position is the end of its contiguous finished prefix.
//
// The reader of the stream adds events to the open mark and seals it with the position behind them.
// The promise of each record calls Mark.Done, and the last one of a sealed mark signals moved. The
// keeper of the position then calls Position, which takes the finished prefix off the queue, stores
// the position, and calls Stored, which makes room for the reader.
//
// It also bounds the events behind the stored position, whether or not the brokers have confirmed
// them: they take memory, and a start after a kill sends them again.
//
// One goroutine, the reader, calls Begin, Add, Commit, Idle, Reached, Suspend and Full. Any
// goroutine may call Mark.Done, Position, Stored, Oldest and Moved.
type Watermark struct {
	// Owned by the reader: where the stream is.
	end    LSN       // the end of the last transaction or idle advance received
	commit LSN       // the current transaction, or one that an earlier session published in part
	rows   uint32    // its row changes that have a mark, counted from its start
	at     time.Time // when the current transaction committed
	inside bool      // between Begin and Commit
	open   *Mark     // takes the next events of the current transaction; nil before the first
	events int       // events in open
	slab   []Mark    // marks for later

	// Owned by the reader: the bound, in bytes.
	limit int64
	added int64 // of all events so far
	full  bool  // the bound was reached, and a quarter of it is not free yet

	safe  atomic.Int64    // bytes of the events before the stored position
	room  chan<- struct{} // tells the reader that safe has grown
	moved chan struct{}   // tells the keeper that the position may have moved

	// The reader takes the mutex once a transaction, the keeper once an attempt to store. A promise
	// never takes it: Mark.Done counts down atomically.
	mu     sync.Mutex
	queue  []*Mark
	done   Position // the end of the prefix that was taken off the queue
	passed uint64   // marks with events in that prefix
	freed  int64    // bytes of the events in that prefix
}

// Mark stands for consecutive events of one transaction.
type Mark struct {
	w       *Watermark
	pending atomic.Int32 // events not confirmed, and one for the reader until it seals the mark
	pos     Position     // written by the reader before it seals; read only once pending is zero
	at      time.Time    // when the transaction committed
	bytes   int64        // size of its events
	idle    bool         // no events: an idle advance, or a transaction without rows for us
}

// NewWatermark returns a Watermark of a stream that starts at start. limit is the in-flight bound,
// in bytes. room receives, if it can do so at once, when a reader that found the bound reached
// should ask again.
func NewWatermark(start Position, limit int64, room chan<- struct{}) *Watermark {
	return &Watermark{
		end: start.End, commit: start.Commit, rows: start.Rows,
		done:  start,
		limit: limit, room: room,
		moved: make(chan struct{}, 1),
	}
}

// Begin opens the transaction whose commit record starts at commit; at is the time of its commit.
func (w *Watermark) Begin(commit LSN, at time.Time) {
	if w.commit != commit {
		w.commit, w.rows = commit, 0
	}
	w.inside, w.at = true, at
}

// Add puts the event with this row index of the current transaction in flight and returns its mark;
// size is the event's, in bytes. The caller calls Done of the mark once, when the brokers have
// confirmed the event, and never otherwise.
func (w *Watermark) Add(row uint32, size int64) *Mark {
	// The bytes of a mark become free together, so that a mark may hold only a part of the bound.
	if w.open != nil && (w.events == eventsPerMark || size >= largeEvent || w.open.bytes+size > w.limit/8) {
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
	w.ensureOpen() // Full may have sealed the last one
	w.end = end
	w.seal(Position{End: end})
}

// Idle takes the WAL end of a keepalive: everything before it was received. It ignores a keepalive
// inside a transaction, which says nothing about the rows to come.
func (w *Watermark) Idle(end LSN) {
	if !w.inside {
		w.advance(end)
	}
}

// Reached returns how far the stream has come, whether or not the brokers have confirmed it.
func (w *Watermark) Reached() Position { return Position{End: w.end, Commit: w.commit, Rows: w.rows} }

// Suspend seals the open mark at the row that the current transaction has reached. Once its events
// are confirmed, that is a position to continue from. Call it last when a stream breaks off.
func (w *Watermark) Suspend() {
	if w.open != nil {
		w.seal(Position{End: w.end, Commit: w.commit, Rows: w.rows})
	}
}

// Full reports whether the events behind the stored position have reached the bound, and from then
// on until a quarter of it is free. A single event may exceed the bound.
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

// Stored says that a position is stored; freed is what Position returned with it. It tells a reader
// that found the bound reached. A reader that is about to wait does not miss that: room holds it.
func (w *Watermark) Stored(freed int64) {
	w.safe.Store(freed)
	signal(w.room)
}

// Position returns the position that is safe to store and then to confirm, and how many marks with
// events lie before it: if that number has not changed, only idle advances have moved the position.
// freed is for Stored.
func (w *Watermark) Position() (pos Position, passed uint64, freed int64) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.pop()
	return w.done, w.passed, w.freed
}

// Oldest returns the commit time of the oldest transaction that is not wholly published; ok is
// false if there is none.
func (w *Watermark) Oldest() (at time.Time, ok bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.pop()
	if len(w.queue) == 0 {
		return time.Time{}, false
	}
	return w.queue[0].at, true
}

// Moved receives after the position may have moved. It holds one signal, so no move is missed.
func (w *Watermark) Moved() <-chan struct{} { return w.moved }

// Done says that the brokers have confirmed one event of the mark. It never blocks.
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

// advance moves the end of the stream forward without an event. Consecutive advances share one
// mark, so that an idle stream takes no memory during an outage.
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

// seal gives the open mark its position, and takes back the reader's own count.
func (w *Watermark) seal(pos Position) {
	m := w.open
	w.open, w.events = nil, 0
	m.pos = pos
	m.Done()
}

// ensureOpen makes sure that there is a mark for the next events of the current transaction.
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
	if len(w.slab) == 0 {
		w.slab = make([]Mark, marksPerSlab)
	}
	m := &w.slab[0]
	w.slab = w.slab[1:]
	m.w = w
	return m
}
