package main

import (
	"fmt"
	"maps"
	"os/exec"
	"runtime"
	"slices"
	"strings"
	"time"

	"github.com/walpost/walpost/integration"
	"github.com/walpost/walpost/integration/process"
)

// drained is one reading of a backlog. What does not apply is zero.
type drained struct {
	rows       int
	whole      time.Duration // with connecting, and all else before the first row
	steadyRows int           // those behind the first that were counted
	steady     time.Duration // in which those were read

	own, walsender, broker time.Duration // CPU time: of what is measured, and of its servers
	mallocs                float64       // allocations, all rows together
	peakMiB                float64
	stolen                 float64 // share of the machine that its host took away
}

// rate is that of the whole where everything had come before the first sample.
func (d drained) rate() float64 {
	if d.steadyRows == 0 {
		return float64(d.rows) / d.whole.Seconds()
	}
	return float64(d.steadyRows) / d.steady.Seconds()
}

func (d drained) perRow(cpu time.Duration) float64 {
	return float64(cpu.Microseconds()) / float64(d.rows)
}

// contender is something that can read the backlog.
type contender struct {
	name    string
	measure func(slot, prefix string) drained
}

// drainCase lets contenders take turns with the same backlog, each with a copy of the slot that was
// there before it.
type drainCase struct {
	load     backlog
	postgres int
	kafka    map[string]string
	delay    time.Duration                                // of the line to the brokers
	prepare  func(h *host, env *integration.Env) []string // more variables for the relay
	vars     []string
	ceilings bool // all of them; otherwise the best reader alone
	producer bool // and the producer alone
	delivery []string
}

func (c drainCase) measure(h *host, opts options, out *report) {
	c.load.rows = max(c.load.rows/opts.Scale, c.load.perTxn)
	if c.postgres == 0 {
		c.postgres = opts.Postgres
	}
	env := serversFor(h, opts, c.postgres, c.kafka, c.delay)
	vars := slices.Concat(c.vars, opts.Set)
	if c.prepare != nil {
		vars = append(vars, c.prepare(h, env)...)
	}
	env.Init(h)
	c.load.fill(h, env)
	contenders := c.contenders(h, env, vars)
	warm(h, opts, env)
	turns := make([][]drained, len(contenders))
	busy := 0.0
	for round := range opts.Rounds {
		for i, contender := range contenders {
			busy = max(busy, quiet())
			slot := fmt.Sprintf("bench%d_%d", round, i)
			prefix := slot + "."
			c.load.createTopics(h, env, prefix)
			env.Exec(h, "SELECT pg_copy_logical_replication_slot($1, $2)", env.Slot, slot)
			before := readMachineTime()
			d := contender.measure(slot, prefix)
			_, d.stolen = readMachineTime().since(before)
			turns[i] = append(turns[i], d)
			dropSlot(h, env, slot)
			env.DeleteTopics(h, prefix)
			runtime.GC()
		}
	}
	for i, contender := range contenders {
		out.drain(h.name, contender.name, turns[i], turns, busy)
	}
}

// warm has a producer send the aims' backlog until the brokers cost what they did the last time:
// Java compiles while it runs, and what is measured first would pay for it.
func warm(h *host, opts options, env *integration.Env) {
	if opts.KFake {
		return
	}
	load, last := theBacklog, 0.0
	load.rows = max(load.rows/opts.Scale, load.perTxn)
	for turn := range 6 {
		prefix := fmt.Sprintf("warm%d.", turn)
		load.createTopics(h, env, prefix)
		d := produceAlone(h, env, load, prefix)
		env.DeleteTopics(h, prefix)
		if cost := d.perRow(d.broker); last == 0 || cost < 0.9*last {
			last = cost
		} else {
			return
		}
	}
}

// serversFor starts the servers of one case.
func serversFor(h *host, opts options, major int, kafka map[string]string, delay time.Duration) *integration.Env {
	settings := maps.Clone(opts.Kafka)
	if settings == nil {
		settings = map[string]string{}
	}
	maps.Copy(settings, kafka)
	needs := integration.Needs{
		Postgres: major, OwnPostgres: true, Kafka: integration.Own, KafkaConfig: settings, KafkaHeap: "1g", KafkaDelay: delay,
		Settings: map[string]string{
			"fsync": "off", "wal_sender_timeout": "0", "max_wal_size": "20GB",
			"shared_buffers": "256MB", "autovacuum": "off", "max_replication_slots": "50",
		},
	}
	if opts.KFake {
		needs.Kafka = integration.Faulty
	}
	return integration.Setup(h, needs)
}

func (c drainCase) contenders(h *host, env *integration.Env, vars []string) []contender {
	read := func(r reader) func(string, string) drained {
		r.url = env.URL()
		for _, entry := range vars {
			if url, ok := strings.CutPrefix(entry, "WALPOST_POSTGRES_URL="); ok {
				r.url = url
			}
		}
		return func(slot, _ string) drained { return r.measure(h, env, slot, c.load.rows) }
	}
	all := []contender{{"reader, in gulps", read(reader{gulp: 10 * time.Millisecond})}}
	if c.ceilings {
		all = append(all,
			contender{"reader, in gulps, 128 KB", read(reader{gulp: 10 * time.Millisecond, buffer: 128 << 10})},
			contender{"reader, at once", read(reader{})})
		if program, err := exec.LookPath("pg_recvlogical"); err == nil {
			all = append(all, contender{"pg_recvlogical", func(slot, _ string) drained {
				return measureRecvlogical(h, env, program, slot, c.load.rows)
			}})
		}
	}
	if c.ceilings || c.producer {
		all = append(all, contender{"producer alone", func(_, prefix string) drained { return produceAlone(h, env, c.load, prefix) }})
	}
	for _, delivery := range c.delivery {
		all = append(all, contender{"walpost, " + delivery, func(slot, prefix string) drained {
			return c.load.relayed(h, env, slot, prefix, append([]string{"WALPOST_DELIVERY=" + delivery}, vars...))
		}})
	}
	return all
}

// part is what one relay publishes of a backlog.
type part struct {
	slot, table, publication string
	rows                     int
	relay                    *process.Relay
}

// relayed has a relay publish the backlog.
func (b backlog) relayed(h *host, env *integration.Env, slot, prefix string, vars []string) drained {
	return b.relayedInParts(h, env, []part{{slot: slot, table: env.Table, publication: env.Publication, rows: b.rows}}, prefix, vars)
}

// relayedInParts has some relays publish the backlog, each its part.
func (b backlog) relayedInParts(h *host, env *integration.Env, parts []part, prefix string, vars []string) drained {
	broker, start := brokerTime(env), time.Now()
	for i, p := range parts {
		parts[i].relay = env.Run(h, append([]string{
			"WALPOST_SLOT=" + p.slot, "WALPOST_STATE_TOPIC=state." + p.slot, "WALPOST_TOPIC=" + prefix + "{aggregatetype}",
			"WALPOST_TABLE=" + p.table, "WALPOST_PUBLICATION=" + p.publication,
		}, vars...)...)
	}
	d := drained{rows: b.rows}
	var first, before float64 // events and allocations at the first sample with any
	var firstAt, end time.Time
	samples, pause := 0, closely
	for {
		published, mallocs := progress(h, parts, first > 0)
		now := time.Now()
		if published > 0 && first == 0 {
			first, firstAt, before = published, now, mallocs
		} else if first > 0 {
			samples++
		}
		if published >= float64(b.rows) {
			end, d.mallocs = now, mallocs-before
			break
		}
		if samples > 0 && published > first { // a sample costs the relay something: few of them until the end is near
			left := time.Duration(float64(now.Sub(firstAt)) * (float64(b.rows) - published) / (published - first))
			pause = min(max(left/2, closely), 500*time.Millisecond)
		}
		time.Sleep(pause)
	}
	d.whole, d.steadyRows, d.steady = end.Sub(start), b.rows-int(first), end.Sub(firstAt)
	d.broker = brokerTime(env) - broker
	for _, p := range parts {
		d.own += busyTime(p.relay.PID())
		d.peakMiB += memoryMiB(p.relay.PID(), "VmHWM")
		var pid int
		_, _ = fmt.Sscan(env.Value(h, "SELECT active_pid FROM pg_replication_slots WHERE slot_name = $1", p.slot), &pid)
		d.walsender += busyTime(pid)
		d.mallocs -= float64(samples) * oneSample(h, p.relay)
	}
	d.mallocs = max(d.mallocs, 0)
	for _, p := range parts {
		p.relay.Stop(h)
	}
	return d
}

// closely is the time between two samples at the beginning and at the end.
const closely = 15 * time.Millisecond

// progress is how many events the relays have published, and how often they have allocated. Until
// they have started they may not answer.
func progress(h *host, parts []part, started bool) (published, mallocs float64) {
	for _, p := range parts {
		if !p.relay.Running() {
			h.Fatal("the relay ended: ", p.relay.Log())
		}
		if !started && !p.relay.IsLive() {
			continue
		}
		m := p.relay.Metrics(h)
		published += sumOf(m, "walpost_events_published_total")
		mallocs += m["go_memstats_mallocs_total"]
	}
	return published, mallocs
}

// oneSample is how many allocations one answer with the metrics takes in the relay.
func oneSample(h *host, relay *process.Relay) float64 {
	const samples = 20
	before := relay.Metrics(h)["go_memstats_mallocs_total"]
	for range samples {
		relay.Metrics(h)
	}
	return (relay.Metrics(h)["go_memstats_mallocs_total"] - before) / (samples + 1)
}

func sumOf(metrics map[string]float64, prefix string) float64 {
	sum := 0.0
	for name, value := range metrics {
		if strings.HasPrefix(name, prefix) {
			sum += value
		}
	}
	return sum
}

// dropSlot waits until the last reader has left it.
func dropSlot(h *host, env *integration.Env, slot string) {
	for range 200 {
		if env.Value(h, "SELECT active FROM pg_replication_slots WHERE slot_name = $1", slot) == "false" {
			break
		}
		time.Sleep(20 * time.Millisecond)
	}
	env.Exec(h, "SELECT pg_drop_replication_slot($1)", slot)
}
