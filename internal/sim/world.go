package sim

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"time"

	"github.com/jackc/pgx/v5/pgconn"
	"github.com/twmb/franz-go/pkg/kerr"

	"github.com/walpost/walpost/decoder"
	"github.com/walpost/walpost/internal/relay"
	"github.com/walpost/walpost/sink"
)

// world is one run: the servers, the relays, and what has happened.
type world struct {
	began     time.Time
	random    *rand.Rand
	settings  *pgconn.Config
	template  *sink.Template
	exactly   bool
	net       *network
	pg        *postgres
	kafka     *kafka
	rules     *rules
	instances []*instance
	events    int
	numbers   map[string]int
	trace     []string
	bad       map[string]bool // events at which a relay may halt
	hopeless  bool            // there is one that no relay can ever publish
	last      int             // the number of the last event before it
}

// Options choose a run.
type Options struct {
	Seed  uint64
	Steps int    // how many things happen
	Skip  []bool // of these steps, by their number: what a failing run does not need
}

// Result is the outcome of a run.
type Result struct {
	Broken []string // the rules that did not hold; empty = all did
	Trace  []string
	Events int
	Faults int
}

// Failed reports whether a rule was broken.
func (r Result) Failed() bool { return len(r.Broken) > 0 }

// String tells the story of a run.
func (r Result) String() string { return strings.Join(append(r.Trace, r.Broken...), "\n") }

// Run plays a scenario. It must be called within a bubble of testing/synctest.
func Run(o Options) Result {
	w := newWorld(o.Seed)
	defer w.close()
	w.start()
	faults := 0
	for step := range o.Steps {
		pause := time.Duration(w.random.Int64N(int64(400 * time.Millisecond)))
		a := w.choose()
		arguments := rand.New(rand.NewPCG(w.random.Uint64(), w.random.Uint64()))
		if step < len(o.Skip) && o.Skip[step] {
			continue
		}
		time.Sleep(pause)
		w.note("%s", a.name)
		if a.fault {
			faults++
		}
		a.do(w, arguments)
		w.checkAlways()
		if len(w.rules.broken) > 0 || w.over() {
			break
		}
	}
	if len(w.rules.broken) == 0 {
		w.finish()
	}
	return Result{Broken: w.rules.broken, Trace: w.story(), Events: w.events, Faults: faults}
}

func newWorld(seed uint64) *world {
	random := rand.New(rand.NewPCG(seed, 1))
	template, err := sink.ParseTemplate("{aggregatetype}", nil)
	if err != nil {
		panic(err)
	}
	w := &world{
		began: time.Now(), random: random, settings: parseSettings(), template: template, exactly: seed%2 == 1, numbers: map[string]int{}, bad: map[string]bool{},
		net: newNetwork(rand.New(rand.NewPCG(seed, 2))), kafka: newKafka(rand.New(rand.NewPCG(seed, 3))),
	}
	w.pg = newPostgres(w.net, rand.New(rand.NewPCG(seed, 4)))
	w.rules = &rules{
		w: w, published: map[string]int{}, barred: map[string]bool{}, lastOf: map[string]int{}, number: map[string]row{},
		pos: map[string]string{}, lastPos: map[*partition]string{},
	}
	w.pg.onStatus = w.rules.confirmed
	w.kafka.onAppend = func(e *entry, visible bool) {
		if visible {
			w.visible([]*entry{e})
		}
	}
	w.kafka.onCommit = w.visible
	return w
}

// visible shows records to consumers: events before positions, since one commit shows them all.
func (w *world) visible(entries []*entry) {
	for _, e := range entries {
		if e.state == nil {
			w.rules.seen(e)
		}
	}
	for _, e := range entries {
		if e.state != nil {
			w.rules.stored(e)
		}
	}
}

func (w *world) close() {
	for _, i := range w.instances {
		if i.running() {
			i.kill()
		}
	}
	w.pg.close()
}

func (w *world) note(format string, args ...any) {
	w.trace = append(w.trace, fmt.Sprintf("%9.3fs  ", time.Since(w.began).Seconds())+fmt.Sprintf(format, args...))
}

// story is the trace and the logs of the relays.
func (w *world) story() []string {
	story := append([]string(nil), w.trace...)
	for _, i := range w.instances {
		story = append(story, fmt.Sprintf("log of relay %d:", i.n), strings.TrimRight(i.log.String(), "\n"))
		if !i.running() {
			story = append(story, fmt.Sprintf("relay %d ended: %v", i.n, i.err))
		}
	}
	return append(story, w.kafka.dump()...)
}

// insert commits a transaction of some rows.
func (w *world) insert(random *rand.Rand, count int) { w.commit(w.rows(random, count)) }

// rows are the next events.
func (w *world) rows(random *rand.Rand, count int) []row {
	rows := make([]row, count)
	for i := range rows {
		w.events++
		key := string(rune('a' + random.IntN(6)))
		w.numbers[key]++
		rows[i] = row{id: fmt.Sprint("e", w.events), key: key, n: w.numbers[key], size: random.IntN(600)}
	}
	return rows
}

func (w *world) commit(rows []row) {
	w.kafka.mu.Lock()
	for _, r := range rows {
		w.rules.number[r.id] = r
	}
	w.kafka.mu.Unlock()
	w.pg.commitRows(rows)
}

// checkAlways checks the rules that hold at every moment.
func (w *world) checkAlways() {
	for _, i := range w.instances {
		if i.isDead() || !i.running() {
			continue
		}
		if st := i.relay.Status(); st.Sink.Bytes > maxInFlight+4<<10 {
			w.rules.violate("relay %d has %d bytes in flight, its bound is %d", i.n, st.Sink.Bytes, maxInFlight)
		}
	}
}

// over reports whether the run ends because no relay can go on without an operator; the rules hold
// all the same.
func (w *world) over() bool { return w.hopeless || !w.pg.intact() }

// finish ends all faults and waits until everything is published and confirmed.
func (w *world) finish() {
	w.heal()
	if w.over() {
		w.awaitHalt()
		return
	}
	for deadline := time.Now().Add(5 * time.Minute); ; {
		w.revive()
		if len(w.rules.missing()) == 0 && w.pg.caughtUp() {
			break
		}
		if time.Now().After(deadline) {
			w.rules.violate("five minutes after the last fault these events are missing: %v; %s is confirmed, the WAL ends at %s", w.rules.missing(), w.pg.confirmed, w.pg.end)
			return
		}
		time.Sleep(time.Second)
		if len(w.rules.broken) > 0 {
			return
		}
	}
	// A producer that failed with the last fault waits for a second, and a stop within it says so.
	time.Sleep(3 * time.Second)
	for _, i := range w.instances {
		if !i.running() {
			continue
		}
		streams := i.relay.Status().State == relay.Streaming
		err := i.terminate()
		// What a relay in standby once gave up may lie on a former timeline, with nothing stored
		// since: it cannot know.
		if err == nil || errors.Is(err, relay.ErrDrain) && !streams && w.pg.present() > 1 {
			continue
		}
		w.rules.violate("an orderly stop of relay %d: %v", i.n, err)
	}
	w.rules.bar()
	// Each stream repeats at most what was in flight when the one before it ended.
	if most := w.pg.started() * (maxInFlight/512 + 1); w.rules.repeats > most {
		w.rules.violate("%d repeats, and %d streams may have repeated %d", w.rules.repeats, w.pg.started(), most)
	}
	i := w.start() // finds everything published
	time.Sleep(30 * time.Second)
	if !i.running() {
		w.rules.violate("relay %d ended without a reason: %v", i.n, i.err)
	}
}

// heal ends every fault of the servers.
func (w *world) heal() {
	w.kafka.mu.Lock()
	w.kafka.slow, w.kafka.down, w.kafka.states.stuck, w.kafka.endFault, w.kafka.poison = false, false, false, none, map[string]error{}
	for _, p := range w.kafka.partitions {
		p.stuck = false
	}
	w.kafka.mu.Unlock()
	w.note("all faults end")
}

// expected reports whether a relay had a reason to halt.
func (w *world) expected(halt error) bool {
	var event *sink.EventError
	var commit *sink.CommitError
	if errors.As(halt, &commit) && commit.Fenced { // two took turns
		return w.exactly && len(w.instances) > 1
	}
	return w.over() || errors.As(halt, &event) && errors.Is(event, kerr.PolicyViolation)
}

// named is the event that a relay has halted at; empty = none.
func named(halt error) string {
	var event *sink.EventError
	var broken *decoder.Error
	switch {
	case errors.As(halt, &event):
		return event.EventID
	case errors.As(halt, &broken):
		return broken.EventID
	}
	return ""
}

// checkHalt checks which event a relay has halted at: the servers refuse it or it breaks the
// contract, and everything before it is published, since skipping it would skip that too. A relay
// that was told to stop meanwhile could not find out.
func (w *world) checkHalt(i *instance, halt error) {
	id := named(halt)
	before, there := w.pg.rowsUntil(id)
	if id == "" || i.stopped || !there {
		return
	}
	if !w.bad[id] {
		w.rules.violate("relay %d halted at event %s, which nobody refuses: %v", i.n, id, halt)
	}
	w.kafka.mu.Lock()
	defer w.kafka.mu.Unlock()
	for _, r := range before {
		if w.rules.published[r.id] == 0 && !r.skipped {
			w.rules.violate("relay %d halted at event %s, and event %s before it is not published", i.n, id, r.id)
		}
	}
}

// awaitHalt waits for the halt of a relay that must not go on. Until then, and after every later
// start, nothing is confirmed or stored past what is missing in the stream: the other rules check
// that.
func (w *world) awaitHalt() {
	for range 2 {
		if w.running() == 0 {
			w.start()
		}
		halts, deadline := 0, time.After(2*time.Minute)
		for _, i := range w.instances {
			if !i.running() {
				continue
			}
			select {
			case <-i.ended:
			case <-deadline:
				w.rules.violate("relay %d goes on, though events are missing in its stream", i.n)
				return
			}
			halt, ok := i.halted()
			if !ok {
				w.rules.violate("relay %d ended without saying why: %v", i.n, i.err)
				return
			}
			if w.checkHalt(i, halt); named(halt) != "" {
				halts++
			}
		}
		if w.hopeless && halts == 0 {
			w.rules.violate("no relay says at which event it has halted")
		}
	}
}
