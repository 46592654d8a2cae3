package sim

import (
	"fmt"

	"github.com/walpost/walpost/cdc"
)

// rules are what must hold after every step.
type rules struct {
	w         *world
	broken    []string
	published map[string]int // events in the logs that consumers see, and how often
	appended  map[string]bool
	barred    map[string]bool // must not be published again
	lastOf    map[string]int  // by key: the number of its last event, without repeats
	number    map[string]row
	repeats   int
	pos       map[string]string     // of the first record of each event
	lastPos   map[*partition]string // of the last record that is no repeat
}

func (r *rules) violate(format string, args ...any) {
	if len(r.broken) < 10 {
		r.broken = append(r.broken, fmt.Sprintf(format, args...))
	}
}

// seen is called for each event that becomes visible to consumers, in the order of its partition.
// The brokers' mutex is held.
func (r *rules) seen(e *entry) {
	row, known := r.number[e.id]
	if !known {
		r.violate("event %q was never committed", e.id)
		return
	}
	if e.age > 0 { // virtual time: to read, decode and produce takes none
		r.violate("event %s was produced with a timestamp of %s before", e.id, e.age)
	}
	r.published[e.id]++
	if first, repeated := r.pos[e.id]; repeated && first != e.pos {
		r.violate("event %s has pos %s, and had %s", e.id, e.pos, first)
	}
	r.pos[e.id] = e.pos
	if r.w.behind(e.id) {
		r.violate("event %s passed one that can never be published", e.id)
	}
	if n := r.published[e.id]; n > 1 {
		r.repeats++
		if r.w.exactly {
			r.violate("event %s is there %d times", e.id, n)
		}
		if r.barred[e.id] {
			r.violate("event %s was published again after an orderly stop", e.id)
		}
		return
	}
	if r.w.pg.isLost(e.id) { // by a failover: what a paused relay still sends of that is out of any order
		return
	}
	if row.n <= r.lastOf[row.key] {
		r.violate("event %s of key %s comes after number %d", e.id, row.key, r.lastOf[row.key])
	}
	r.lastOf[row.key] = row.n
	p := r.w.kafka.partitionOf(row.key)
	if e.pos <= r.lastPos[p] {
		r.violate("event %s has pos %s, after %s in its partition", e.id, e.pos, r.lastPos[p])
	}
	r.lastPos[p] = e.pos
}

// stored is called for each position that becomes visible: everything before it is published. The
// brokers' mutex is held.
func (r *rules) stored(e *entry) {
	pos := e.state.Position
	rows := r.w.pg.rowsBefore(pos.End)
	if pos.Commit != 0 {
		rows = append(rows, r.w.pg.rowsWithin(pos.Commit, pos.Rows)...)
	}
	if e.state.Timeline != r.w.pg.present() {
		return // of a former timeline: the next start decides what it means
	}
	for _, row := range rows {
		if r.published[row.id] == 0 && !row.skipped {
			r.violate("position %v was stored before event %s was published", pos, row.id)
		}
	}
}

// confirmed is called for each status that reaches Postgres: nothing is confirmed that is not
// stored.
func (r *rules) confirmed(lsn cdc.LSN) {
	r.w.kafka.mu.Lock()
	defer r.w.kafka.mu.Unlock()
	state, stored, _ := r.w.kafka.furthest(true)
	limit := r.w.pg.adopted
	if stored && state.Timeline == r.w.pg.present() {
		limit = max(limit, state.End)
	} else if stored {
		return // the first of a new timeline
	}
	if lsn > limit {
		r.violate("%s was confirmed, %s is stored", lsn, limit)
	}
	for _, row := range r.w.pg.rowsBefore(lsn) {
		// A stored position may pass it: the publication identity is stored with it, and a start
		// compares.
		if row.skipped {
			r.violate("%s was confirmed past event %s, which the publication left out", lsn, row.id)
		}
		if r.published[row.id] == 0 && !row.skipped {
			r.violate("%s was confirmed before event %s was published", lsn, row.id)
		}
	}
}

// missing are the events that must be there and are not.
func (r *rules) missing() []string {
	r.w.kafka.mu.Lock()
	defer r.w.kafka.mu.Unlock()
	var ids []string
	for _, row := range r.w.pg.rowsBefore(1 << 62) {
		if r.published[row.id] == 0 && !row.skipped {
			ids = append(ids, row.id)
		}
	}
	return ids
}

// bar forbids that what lies before the stored position is published again. No relay may be
// running.
func (r *rules) bar() {
	r.w.kafka.mu.Lock()
	defer r.w.kafka.mu.Unlock()
	state, stored, _ := r.w.kafka.furthest(false)
	if !stored || state.Timeline != r.w.pg.present() {
		return
	}
	for _, row := range append(r.w.pg.rowsBefore(state.End), r.w.pg.rowsWithin(state.Commit, state.Rows)...) {
		r.barred[row.id] = true
	}
}
