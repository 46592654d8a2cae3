package sim

import (
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/walpost/walpost/cdc"
)

// row is an event in the outbox.
type row struct {
	id, key string
	topic   string // empty = the usual one
	n       int    // of its key: the order in which rows were committed
	size    int
	skipped bool // was not in the publication: no stream has it
}

// txn is a committed transaction.
type txn struct {
	commit, end cdc.LSN
	at          time.Time
	rows        []row
}

// wal is the state of the simulated Postgres: its WAL, its slot, its publication.
type wal struct {
	mu        sync.Mutex
	end       cdc.LSN
	timeline  uint32
	history   []string // lines of the timeline history file
	branched  cdc.LSN  // where the timeline began: its standbys have it up to there at least
	txns      []txn
	confirmed cdc.LSN // of the slot
	durable   cdc.LSN // what a crash goes back to
	life      int     // crashes and failovers so far
	slot      bool
	published bool
	altered   int             // how often the publication was
	gap       bool            // the slot is another one than at first
	changed   chan struct{}   // closed with the next change
	lost      map[string]bool // events of transactions that a failover has undone
	adopted   cdc.LSN         // the slot's own position, for the first start
}

func newWAL() *wal {
	return &wal{end: 0x1000000, timeline: 1, confirmed: 0x1000000, durable: 0x1000000, adopted: 0x1000000, slot: true, published: true, changed: make(chan struct{}), lost: map[string]bool{}}
}

// announce wakes the walsenders. The mutex is held.
func (w *wal) announce() {
	close(w.changed)
	w.changed = make(chan struct{})
}

// commitRows appends a transaction; without rows it is one of other tables.
func (w *wal) commitRows(rows []row) {
	w.mu.Lock()
	defer w.mu.Unlock()
	size := cdc.LSN(64)
	for i := range rows {
		rows[i].skipped = !w.published
		size += cdc.LSN(100 + rows[i].size)
	}
	w.end += size
	t := txn{commit: w.end, end: w.end + 48, at: time.Now(), rows: rows}
	w.end = t.end
	if len(rows) > 0 {
		w.txns = append(w.txns, t)
	}
	w.announce()
}

// after returns the first transaction whose commit record is at or behind a position.
func (w *wal) after(pos cdc.LSN) (txn, bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	i, _ := slices.BinarySearchFunc(w.txns, pos, func(t txn, pos cdc.LSN) int {
		if t.commit < pos {
			return -1
		}
		return 1
	})
	if i == len(w.txns) {
		return txn{}, false
	}
	return w.txns[i], true
}

// confirm is what a standby status does to the slot. As the real one it believes every position,
// and never goes back. A status that reaches a server which has crashed does nothing.
func (w *wal) confirm(lsn cdc.LSN, life int) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if life == w.life {
		w.confirmed = max(w.confirmed, lsn)
	}
}

// lived is how often the server has crashed.
func (w *wal) lived() int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.life
}

func (w *wal) checkpoint() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.durable = w.confirmed
}

// crash loses what was confirmed since the last checkpoint.
func (w *wal) crash() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.confirmed = w.durable
	w.life++
}

// failover makes a standby the primary: what it has not received of the last transactions is gone.
// The slot was synchronised to it some time ago.
func (w *wal) failover(lose int) {
	w.mu.Lock()
	defer w.mu.Unlock()
	keep := max(len(w.txns)-lose, 0)
	fork := max(w.durable, w.branched)
	if keep > 0 {
		fork = max(fork, w.txns[keep-1].end)
	}
	for keep < len(w.txns) && w.txns[keep].end <= fork { // the slot of a standby is never ahead of it
		keep++
	}
	for _, t := range w.txns[keep:] {
		for _, r := range t.rows {
			w.lost[r.id] = true
		}
	}
	w.txns = w.txns[:keep:keep]
	w.history = append(w.history, fmt.Sprintf("%d\t%s\tno recovery target specified", w.timeline, fork))
	w.timeline++
	w.life++
	w.end, w.confirmed, w.branched = fork, w.durable, fork
	w.announce()
}

// publish takes the table into the publication, or out of it.
func (w *wal) publish(published bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.published = published
	w.altered++
}

// rowsBefore are the rows of all transactions that end at or before a position.
func (w *wal) rowsBefore(pos cdc.LSN) []row {
	w.mu.Lock()
	defer w.mu.Unlock()
	var rows []row
	for _, t := range w.txns {
		if t.end > pos {
			break
		}
		rows = append(rows, t.rows...)
	}
	return rows
}

// rowsWithin are the first rows of the transaction whose commit record is at a position.
func (w *wal) rowsWithin(commit cdc.LSN, n uint32) []row {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, t := range w.txns {
		if t.commit == commit {
			return t.rows[:min(int(n), len(t.rows))]
		}
	}
	return nil
}

// rowsUntil are the rows that come before one in the stream; ok is false if there is no such row.
func (w *wal) rowsUntil(id string) (before []row, ok bool) {
	for _, r := range w.rowsBefore(1 << 62) {
		if r.id == id {
			return before, true
		}
		before = append(before, r)
	}
	return nil, false
}

// present is the timeline.
func (w *wal) present() uint32 {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.timeline
}

func (w *wal) isLost(id string) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.lost[id]
}

// intact reports whether the stream has every event: the publication and the slot are as they were.
func (w *wal) intact() bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.altered == 0 && !w.gap
}

func (w *wal) caughtUp() bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.confirmed >= w.end
}

func (w *wal) dropSlot() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.slot = false
}

// createSlot makes a slot that begins at the present end. What was committed since the stored
// position is not in its stream.
func (w *wal) createSlot() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.slot, w.gap = true, true
	w.confirmed, w.durable = w.end, w.end
}
