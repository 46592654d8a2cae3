package sim

import (
	"context"
	"fmt"
	"hash/fnv"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"

	"github.com/walpost/walpost/checkpoint"
)

const (
	stateTopic = "state"
	// partitionCount is how many partitions a topic of events has.
	partitionCount = 3
	// transactionTimeout is after which the brokers abort an open transaction.
	transactionTimeout = 15 * time.Second
)

// kafka is the simulated cluster: what its partitions hold, and its transactions.
type kafka struct {
	mu         sync.Mutex
	random     *rand.Rand
	partitions []*partition // of the events
	states     *partition
	producers  map[string]*producer // by transactional id
	down       bool
	slow       bool
	poison     map[string]error // what the brokers answer to some events
	endFault   fault            // of the next end of a transaction

	onAppend func(e *entry, visible bool)
	onCommit func(entries []*entry)
}

type partition struct {
	index int // -1 = the state topic
	log   []*entry
	stuck bool // every request for it is answered with a retriable error
}

// entry is a record in a log.
type entry struct {
	id, pos string
	state   *checkpoint.State // of a record of the state topic
	txn     *transaction      // nil = none
	by      *instance
	at      time.Time
	age     time.Duration // of its timestamp when it was produced
}

// visible reports whether consumers of committed records see it.
func (e *entry) visible() bool { return e.txn == nil || e.txn.status == committed }

type status int

const (
	open status = iota
	committed
	aborted
)

type transaction struct {
	status  status
	began   time.Time
	entries []*entry
}

// producer is what the coordinator knows of a transactional id.
type producer struct {
	epoch int16
	open  *transaction
}

// fault is what becomes of the end of a transaction.
type fault int

const (
	none      fault = iota
	lost            // committed, but nobody is told
	swallowed       // the request never arrived
)

func newKafka(random *rand.Rand) *kafka {
	k := &kafka{random: random, states: &partition{index: -1}, producers: map[string]*producer{}, poison: map[string]error{}}
	for i := range partitionCount {
		k.partitions = append(k.partitions, &partition{index: i})
	}
	return k
}

func (k *kafka) partitionOf(key string) *partition {
	h := fnv.New32a()
	_, _ = h.Write([]byte(key))
	return k.partitions[h.Sum32()%partitionCount]
}

// pause is how long something takes: mostly little, at times much.
func (k *kafka) pause(most time.Duration) time.Duration {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.slow || k.random.IntN(50) == 0 {
		most *= 20
	}
	return time.Duration(k.random.Int64N(int64(most))) + time.Microsecond
}

// wait sleeps; false means that ctx has ended.
func wait(ctx context.Context, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-timer.C:
		return true
	}
}

// available reports whether a partition can be written. The mutex is held.
func (k *kafka) available(p *partition) bool { return !k.down && !p.stuck }

// initialize gives a transactional id a new epoch. An open transaction of the one before is
// aborted. The mutex is held.
func (k *kafka) initialize(id string) int16 {
	p := k.producers[id]
	if p == nil {
		p = &producer{}
		k.producers[id] = p
	}
	if p.open != nil {
		p.open.status = aborted
		p.open = nil
	}
	p.epoch++
	return p.epoch
}

// expire aborts transactions that are open for too long, and fences whoever has opened them. The
// mutex is held.
func (k *kafka) expire() {
	for _, p := range k.producers {
		if p.open != nil && time.Since(p.open.began) > transactionTimeout {
			p.open.status = aborted
			p.open = nil
			p.epoch++
		}
	}
}

// append puts records into a partition, within the transaction of a transactional id unless it is
// empty. The mutex is held.
func (k *kafka) append(p *partition, entries []*entry, id string, epoch int16) error {
	k.expire()
	var txn *transaction
	if id != "" {
		of := k.producers[id]
		if of == nil || of.epoch != epoch {
			return kerr.InvalidProducerEpoch
		}
		if of.open == nil {
			of.open = &transaction{began: time.Now()}
		}
		txn = of.open
	}
	for _, e := range entries {
		e.txn, e.at = txn, time.Now()
		p.log = append(p.log, e)
		if txn != nil {
			txn.entries = append(txn.entries, e)
		}
		k.onAppend(e, e.visible())
	}
	return nil
}

// end ends the transaction of a transactional id, and gives it its next epoch. The mutex is held.
func (k *kafka) end(id string, epoch int16, commit bool) error {
	k.expire()
	p := k.producers[id]
	if p == nil || p.epoch != epoch {
		return kerr.InvalidProducerEpoch
	}
	if p.open != nil {
		p.open.status = aborted
		if commit {
			p.open.status = committed
			k.onCommit(p.open.entries)
		}
		p.open = nil
	}
	p.epoch++
	return nil
}

// dump lists the end of each log.
func (k *kafka) dump() []string {
	k.mu.Lock()
	defer k.mu.Unlock()
	var lines []string
	for _, p := range append(k.partitions, k.states) {
		line := fmt.Sprintf("partition %d:", p.index)
		for _, e := range p.log[max(0, len(p.log)-40):] {
			name := e.id
			if e.state != nil {
				name = e.state.String()
			}
			line += fmt.Sprintf(" %s(by %d at %.3f%s)", name, e.by.n, e.at.Sub(e.by.w.began).Seconds(), map[bool]string{false: ", not visible"}[e.visible()])
		}
		lines = append(lines, line)
	}
	return lines
}

// furthest is the state that a reader of the topic finds, up to an open transaction or beyond it;
// ok is false if that would have to wait for one. The mutex is held.
func (k *kafka) furthest(stopAtOpen bool) (state checkpoint.State, stored, ok bool) {
	k.expire()
	for _, e := range k.states.log {
		if e.txn != nil && e.txn.status == open {
			if stopAtOpen {
				break
			}
			return state, stored, false
		}
		if !e.visible() {
			continue
		}
		if stored {
			state = state.Merge(*e.state)
		} else {
			state, stored = *e.state, true
		}
	}
	return state, stored, true
}
