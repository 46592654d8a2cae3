package demo

import (
	"slices"
	"sync"
	"time"
)

// ledger compares what was committed with what arrives.
type ledger struct {
	mu      sync.Mutex
	pending map[string]entry     // committed or about to be, and not arrived; by event id
	keys    map[string]*keyOrder // by topic and key
	last    map[partition]string // the pos of the last record
	sums    totals               // all but the latencies
	took    []time.Duration      // from sending COMMIT to arrival
}

type partition struct {
	topic  string
	number int32
}

type entry struct {
	key  string // of keys
	seq  int    // its number among the events of its key
	sent time.Time
}

type keyOrder struct{ committed, arrived int }

// totals are the sums of a run.
type totals struct {
	transactions, committed            int
	rolledBackTransactions, rolledBack int
	received, repeats, outOfOrder      int
	invented                           int // arrived, and never committed
	missing                            int
	p50, p99                           time.Duration
}

func (t totals) good() bool {
	return t.missing == 0 && t.repeats == 0 && t.outOfOrder == 0 && t.invented == 0
}

func newLedger() *ledger {
	return &ledger{pending: map[string]entry{}, keys: map[string]*keyOrder{}, last: map[partition]string{}}
}

// commit notes a transaction just before its COMMIT is sent. The latency starts here: when COMMIT
// has returned would be too late, because the record may have arrived already, and the server's own
// commit time is another clock. So it includes the round trip and the flush of the commit itself,
// and is never too small.
func (l *ledger) commit(events []event, now time.Time) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.sums.transactions++
	l.sums.committed += len(events)
	for _, e := range events {
		key := e.aggregate + " " + e.key
		order := l.keys[key]
		if order == nil {
			order = &keyOrder{}
			l.keys[key] = order
		}
		order.committed++
		l.pending[e.id] = entry{key: key, seq: order.committed, sent: now}
	}
}

// rollBack notes a transaction of which nothing may arrive.
func (l *ledger) rollBack(events []event) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.sums.rolledBackTransactions++
	l.sums.rolledBack += len(events)
}

// arrive notes a record. A repeat is told from an invention by its pos, which grows within a
// partition.
func (l *ledger) arrive(id, topic string, number int32, pos string, now time.Time) (took time.Duration, known bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	at := partition{topic, number}
	old := pos <= l.last[at]
	l.last[at] = max(l.last[at], pos)
	e, known := l.pending[id]
	switch {
	case !known && old:
		l.sums.repeats++
		return 0, false
	case !known:
		l.sums.invented++
		return 0, false
	}
	delete(l.pending, id)
	l.sums.received++
	order := l.keys[e.key]
	if old || e.seq != order.arrived+1 {
		l.sums.outOfOrder++
	}
	order.arrived = max(order.arrived, e.seq)
	took = now.Sub(e.sent)
	l.took = append(l.took, took)
	return took, true
}

func (l *ledger) missing() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return len(l.pending)
}

func (l *ledger) committed() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.sums.committed
}

func (l *ledger) total() totals {
	l.mu.Lock()
	defer l.mu.Unlock()
	t := l.sums
	t.missing = len(l.pending)
	if n := len(l.took); n > 0 {
		sorted := slices.Sorted(slices.Values(l.took))
		t.p50, t.p99 = sorted[(n-1)*50/100], sorted[(n-1)*99/100]
	}
	return t
}
