package sim

import (
	"fmt"
	"math/rand/v2"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
)

// action is something that happens in a run.
type action struct {
	name   string
	weight int
	fault  bool
	do     func(w *world, random *rand.Rand)
}

// actions are everything that can happen. Faults of servers end by themselves after a while.
var actions = []action{
	{"a transaction of one row", 30, false, func(w *world, r *rand.Rand) { w.insert(r, 1) }},
	{"a transaction of some rows", 20, false, func(w *world, r *rand.Rand) { w.insert(r, 2+r.IntN(6)) }},
	{"a transaction of many rows", 4, false, func(w *world, r *rand.Rand) { w.insert(r, 40+r.IntN(100)) }},
	{"a burst of transactions", 6, false, func(w *world, r *rand.Rand) {
		for range 3 + r.IntN(20) {
			w.insert(r, 1+r.IntN(3))
		}
	}},
	{"a transaction of other tables", 10, false, func(w *world, _ *rand.Rand) { w.pg.commitRows(nil) }},
	{"a checkpoint", 6, false, func(w *world, _ *rand.Rand) { w.pg.checkpoint() }},
	{"nothing, for some seconds", 3, false, func(_ *world, r *rand.Rand) { time.Sleep(time.Duration(r.IntN(15)) * time.Second) }},

	{"kill -9 of the relay", 6, true, func(w *world, _ *rand.Rand) { w.killOne(); w.revive() }},
	{"SIGTERM of the relay", 4, true, (*world).stopOne},
	{"a second relay", 3, true, func(w *world, _ *rand.Rand) {
		if w.running() < 2 {
			w.start()
		}
	}},
	{"connections to Postgres are cut", 5, true, func(w *world, _ *rand.Rand) { w.net.cut(w.pg.addr) }},
	{"connections to Postgres stand still", 4, true, func(w *world, r *rand.Rand) {
		w.net.freeze(w.pg.addr, time.Duration(r.IntN(20_000))*time.Millisecond)
	}},
	{"a crash of Postgres", 4, true, (*world).crash},
	{"a restart of Postgres", 3, true, (*world).restart},
	{"a failover", 2, true, (*world).failover},
	{"no broker answers", 4, true, func(w *world, r *rand.Rand) {
		w.during(r, 20*time.Second, func(down bool) { w.kafka.down = down })
	}},
	{"the brokers are slow", 4, true, func(w *world, r *rand.Rand) {
		w.during(r, 10*time.Second, func(slow bool) { w.kafka.slow = slow })
	}},
	{"a partition cannot be written", 4, true, func(w *world, r *rand.Rand) {
		p := w.kafka.partitions[r.IntN(partitionCount)]
		w.during(r, 20*time.Second, func(stuck bool) { p.stuck = stuck })
	}},
	{"the state topic cannot be written", 3, true, func(w *world, r *rand.Rand) {
		w.during(r, 10*time.Second, func(stuck bool) { w.kafka.states.stuck = stuck })
	}},
	{"the answer to the end of a Kafka transaction is lost", 3, true, func(w *world, _ *rand.Rand) { w.endFault(lost) }},
	{"the end of a Kafka transaction is lost", 3, true, func(w *world, _ *rand.Rand) { w.endFault(swallowed) }},
	{"the brokers refuse an event", 2, true, (*world).refuse},
	{"the client gives an event up", 2, true, (*world).giveUp},
	{"a row that breaks the contract", 1, true, (*world).spoil},
	{"a takeover while a Kafka transaction ends", 3, true, (*world).takeover},
	{"the table leaves the publication for a while", 1, true, (*world).unpublish},
	{"the slot is dropped and made again", 1, true, (*world).recreate},
}

// choose picks an action by weight.
func (w *world) choose() action {
	total := 0
	for _, a := range actions {
		total += a.weight
	}
	n := w.random.IntN(total)
	for _, a := range actions {
		if n -= a.weight; n < 0 {
			return a
		}
	}
	panic("unreachable")
}

// during makes a fault of the brokers last for a while.
func (w *world) during(random *rand.Rand, most time.Duration, set func(bool)) {
	apply := func(on bool) {
		w.kafka.mu.Lock()
		defer w.kafka.mu.Unlock()
		set(on)
	}
	apply(true)
	d := time.Duration(random.Int64N(int64(most)))
	w.note("  for %s", d.Round(time.Millisecond))
	if random.IntN(2) == 0 {
		time.Sleep(d)
		apply(false)
		return
	}
	time.AfterFunc(d, func() { apply(false) }) // other things happen meanwhile
}

func (w *world) endFault(f fault) {
	w.kafka.mu.Lock()
	defer w.kafka.mu.Unlock()
	w.kafka.endFault = f
}

func (w *world) running() int {
	n := 0
	for _, i := range w.instances {
		if i.running() {
			n++
		}
	}
	return n
}

// killOne kills the relay that runs the longest.
func (w *world) killOne() {
	for _, i := range w.instances {
		if i.running() {
			w.note("  relay %d", i.n)
			i.kill()
			return
		}
	}
}

// revive starts a relay if none runs. One that has halted without a reason breaks a rule.
func (w *world) revive() {
	for _, i := range w.instances {
		halt, ok := i.halted()
		if !ok || i.isDead() {
			continue
		}
		if w.checkHalt(i, halt); !w.expected(halt) {
			w.rules.violate("relay %d halted without a reason: %v", i.n, halt)
		}
	}
	if w.running() == 0 {
		w.start()
	}
}

// stopOne ends a relay in order. Unless its servers are away, it has published and stored
// everything that it read.
func (w *world) stopOne(_ *rand.Rand) {
	for _, i := range w.instances {
		if !i.running() {
			continue
		}
		alone := w.running() == 1
		if err := i.terminate(); err == nil && alone {
			w.rules.bar()
		} else if err != nil {
			w.note("  relay %d: %v", i.n, err)
		}
		break
	}
	w.revive()
}

func (w *world) crash(random *rand.Rand) {
	w.net.setDown(w.pg.addr, true)
	w.net.cut(w.pg.addr)
	w.pg.crash()
	time.Sleep(time.Duration(random.IntN(3000)) * time.Millisecond)
	w.net.setDown(w.pg.addr, false)
}

// restart is a fast stop, which waits until the relay has confirmed everything or has gone, and a
// start.
func (w *world) restart(random *rand.Rand) {
	w.pg.setEnding(true)
	for deadline := time.Now().Add(time.Minute); w.pg.streaming(); time.Sleep(100 * time.Millisecond) {
		if time.Now().After(deadline) {
			w.rules.violate("Postgres cannot stop: a relay has held it up for a minute")
			break
		}
	}
	w.net.setDown(w.pg.addr, true)
	w.net.cut(w.pg.addr)
	if random.IntN(2) == 0 {
		w.pg.crash() // before 17 the slot's position is not written at a stop
	} else {
		w.pg.checkpoint()
	}
	time.Sleep(time.Duration(random.IntN(2000)) * time.Millisecond)
	w.pg.setEnding(false)
	w.net.setDown(w.pg.addr, false)
}

func (w *world) failover(random *rand.Rand) {
	w.net.setDown(w.pg.addr, true)
	w.net.cut(w.pg.addr)
	w.pg.failover(random.IntN(4))
	time.Sleep(time.Duration(random.IntN(3000)) * time.Millisecond)
	w.net.setDown(w.pg.addr, false)
}

// takeover breaks the connection of a relay that waits for slow brokers to end its Kafka
// transaction, while another waits for the slot: the commit may land at any moment between the two
// times that the other reads the state topic.
func (w *world) takeover(random *rand.Rand) {
	brokers := func(slow, down bool) {
		w.kafka.mu.Lock()
		defer w.kafka.mu.Unlock()
		w.kafka.slow, w.kafka.down = slow, down
	}
	if w.running() < 2 {
		w.start()
		time.Sleep(time.Second)
	}
	w.insert(random, 1+random.IntN(3))
	time.Sleep(time.Duration(random.IntN(30)) * time.Millisecond)
	brokers(true, true)
	time.Sleep(time.Duration(random.IntN(500)) * time.Millisecond)
	w.net.cut(w.pg.addr)
	time.Sleep(time.Duration(random.IntN(4000)) * time.Millisecond)
	brokers(true, false)
	time.Sleep(3 * time.Second)
	brokers(false, false)
}

// refuse has the brokers refuse an event until a relay has halted at it; then the operator mends
// what was wrong.
func (w *world) refuse(random *rand.Rand) {
	id := fmt.Sprint("e", w.events+1+random.IntN(3))
	w.kafka.mu.Lock()
	w.kafka.poison[id], w.bad[id] = kerr.PolicyViolation, true
	w.kafka.mu.Unlock()
	w.insert(random, 5)
	time.Sleep(time.Duration(random.IntN(4000)) * time.Millisecond)
	w.kafka.mu.Lock()
	delete(w.kafka.poison, id)
	w.kafka.mu.Unlock()
	w.revive()
}

// giveUp has the brokers answer an event for a while with an error that says nothing about it: the
// client gives up and another one goes on, or it sends the event again itself.
func (w *world) giveUp(random *rand.Rand) {
	id := fmt.Sprint("e", w.events+1+random.IntN(3))
	answer := func(err error) {
		w.kafka.mu.Lock()
		defer w.kafka.mu.Unlock()
		w.kafka.poison[id] = err
	}
	answer([]error{kerr.CorruptMessage, kerr.UnknownServerError}[random.IntN(2)])
	w.insert(random, 5)
	time.Sleep(time.Duration(random.IntN(4000)) * time.Millisecond)
	answer(nil)
}

// spoil commits a row that no relay can ever publish, perhaps while a fault holds up what comes
// before it. The run ends with it: every relay must halt at that row, with everything before it
// published and nothing after it.
func (w *world) spoil(random *rand.Rand) {
	w.kafka.mu.Lock()
	switch random.IntN(6) {
	case 0:
		w.kafka.partitions[random.IntN(partitionCount)].stuck = true
	case 1:
		w.kafka.poison[fmt.Sprint("e", w.events+1+random.IntN(3))] = kerr.CorruptMessage
	case 2, 5:
		w.kafka.endFault = []fault{lost, swallowed}[random.IntN(2)]
	case 3:
		w.kafka.slow = true
	case 4:
		w.kafka.down = true
	}
	w.kafka.mu.Unlock()
	w.insert(random, 1+random.IntN(5))
	time.Sleep(time.Duration(random.IntN(20)) * time.Millisecond)
	rows := w.rows(random, 3)
	if random.IntN(2) == 0 {
		rows[1].topic = "no topic!"
	} else {
		rows[1].key = ""
	}
	w.kafka.mu.Lock()
	w.bad[rows[1].id], w.hopeless, w.last = true, true, w.events-2
	w.kafka.mu.Unlock()
	w.commit(rows)
	w.insert(random, 3)
	time.Sleep(time.Duration(random.IntN(12_000)) * time.Millisecond) // longer than a drain may take
}

// behind reports whether an event is the one that can never be published, or comes after it: events
// are committed in the order of their numbers.
func (w *world) behind(id string) bool {
	var n int
	_, err := fmt.Sscanf(id, "e%d", &n)
	return err == nil && w.hopeless && n > w.last
}

// known reports whether a position is stored, and with it how the publication and the slot are.
func (w *world) known() bool {
	w.kafka.mu.Lock()
	defer w.kafka.mu.Unlock()
	_, stored, _ := w.kafka.furthest(true)
	return stored
}

// unpublish takes the table out of the publication: rows are missing in the stream, and no relay
// may go on. Before the first relay has run, the publication identity is not stored anywhere.
func (w *world) unpublish(random *rand.Rand) {
	if !w.known() {
		return
	}
	w.pg.publish(false)
	for range random.IntN(3) {
		w.insert(random, 1)
		time.Sleep(time.Duration(random.IntN(2000)) * time.Millisecond)
	}
	w.pg.publish(true)
}

// recreate drops the slot while no relay has it, and makes another: what was committed in between
// is in no stream.
func (w *world) recreate(random *rand.Rand) {
	if !w.known() {
		return
	}
	w.killOne()
	w.killOne()
	w.pg.dropSlot()
	for range 1 + random.IntN(3) {
		w.insert(random, 1)
	}
	w.pg.createSlot()
	w.revive()
}
