package main

import (
	"context"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/walpost/walpost/integration"
	"github.com/walpost/walpost/integration/wait"
)

const (
	latencyRate  = 1000 // events a second
	latencyWarm  = 3 * time.Second
	latencyTime  = 15 * time.Second
	writers      = 4
	latencyTurns = 3
)

// latencies are times from one moment to another, of many events.
type latencies []time.Duration

func (l latencies) quantile(q float64) time.Duration {
	if len(l) == 0 {
		return 0
	}
	slices.Sort(l)
	return l[min(int(q*float64(len(l))), len(l)-1)]
}

// live is one turn of a steady load.
type live struct {
	// From before the INSERT, or before the produce, to the consumer; and to the return of COMMIT.
	arrival, commit latencies
	own, broker     time.Duration
	took            time.Duration
	stolen          float64
}

// measureLatency compares a producer alone with both deliveries, at a thousand events a second.
func measureLatency(h *host, opts options, out *report) {
	env := serversFor(h, opts, opts.Postgres, nil, 0)
	env.Init(h)
	turns := map[string][]live{}
	names := []string{"producer alone", "walpost, at-least-once", "walpost, exactly-once"}
	busy := 0.0
	settle()
	for round := range min(opts.Rounds, latencyTurns) {
		for i, name := range names {
			busy = max(busy, quiet())
			prefix := fmt.Sprintf("latency%d_%d.", round, i)
			backlog{topics: 1, partitions: 6}.createTopics(h, env, prefix)
			before := readMachineTime()
			var l live
			if i == 0 {
				l = produceSteadily(h, env, prefix+"order0")
			} else {
				l = relaySteadily(h, env, fmt.Sprintf("latency%d_%d", round, i), prefix,
					append([]string{"WALPOST_DELIVERY=" + strings.TrimPrefix(name, "walpost, ")}, opts.Set...))
			}
			_, l.stolen = readMachineTime().since(before)
			turns[name] = append(turns[name], l)
			env.DeleteTopics(h, prefix)
		}
	}
	for _, name := range names {
		out.latency(h.name, name, turns[name], busy)
	}
}

// produceSteadily is the floor: the same records without a Postgres.
func produceSteadily(h *host, env *integration.Env, topic string) live {
	client := env.Client(h, producerOptions(0)...)
	arrivals := consume(h, env, topic)
	var l live
	steadily(latencyWarm, func(int, time.Time) { produceStamped(h, client, topic) })
	arrivals.reset()
	broker := brokerTime(env)
	l.took = steadily(latencyTime, func(int, time.Time) { produceStamped(h, client, topic) })
	l.broker = brokerTime(env) - broker
	l.arrival = arrivals.take()
	return l
}

func produceStamped(h *host, client *kgo.Client, topic string) {
	value := make([]byte, 500)
	copy(value, stamp())
	client.Produce(h.ctx, &kgo.Record{Topic: topic, Value: value, Headers: someHeaders}, nil)
}

// relaySteadily has a relay publish what some writers insert, one row to a transaction.
func relaySteadily(h *host, env *integration.Env, slot, prefix string, vars []string) live {
	env.Exec(h, "SELECT pg_create_logical_replication_slot($1, 'pgoutput')", slot)
	defer dropSlot(h, env, slot)
	relay := env.Run(h, append([]string{"WALPOST_SLOT=" + slot, "WALPOST_STATE_TOPIC=state." + slot, "WALPOST_TOPIC=" + prefix + "{aggregatetype}"}, vars...)...)
	relay.Ready(h, time.Minute)
	arrivals := consume(h, env, prefix+"order0")
	conns := make([]*pgx.Conn, writers)
	for i := range conns {
		conns[i] = env.Connect(h)
	}
	var mu sync.Mutex
	var l live
	write := func(i int, _ time.Time) {
		start := time.Now()
		_, err := conns[i].Exec(h.ctx, "INSERT INTO "+env.Table+` (id, aggregatetype, aggregateid, type, payload)
			VALUES (gen_random_uuid(), 'order0', $1, 'Placed', jsonb_build_object('a', $2::text, 'x', repeat('x', 400)))`, fmt.Sprint(start.UnixNano()%1000), stamp())
		if err != nil {
			panic(fmt.Sprintf("insert: %v", err))
		}
		mu.Lock()
		l.commit = append(l.commit, time.Since(start))
		mu.Unlock()
	}
	steadily(latencyWarm, write)
	arrivals.reset()
	l.commit = nil
	own, broker := busyTime(relay.PID()), brokerTime(env)
	l.took = steadily(latencyTime, write)
	l.own, l.broker = busyTime(relay.PID())-own, brokerTime(env)-broker
	l.arrival = arrivals.take()
	relay.Stop(h)
	return l
}

// steadily calls f from some goroutines, each at its share of the rate, and does not wait for what
// is late.
func steadily(duration time.Duration, f func(i int, due time.Time)) time.Duration {
	start := time.Now()
	var group sync.WaitGroup
	interval := time.Second * writers / latencyRate
	for i := range writers {
		group.Go(func() {
			next := start.Add(interval * time.Duration(i) / writers)
			for next.Sub(start) < duration {
				time.Sleep(time.Until(next))
				f(i, next)
				next = next.Add(interval)
			}
		})
	}
	group.Wait()
	time.Sleep(300 * time.Millisecond) // the last ones arrive
	return time.Since(start)
}

const stampPrefix = "at:"

// stamp is the present, to be found again in a record.
func stamp() string {
	var b [8]byte
	binary.BigEndian.PutUint64(b[:], uint64(time.Now().UnixNano()))
	return stampPrefix + hex.EncodeToString(b[:])
}

// arrivals are the ages of records when a consumer got them.
type arrivals struct {
	mu   sync.Mutex
	ages latencies
}

func (a *arrivals) reset() {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.ages = nil
}

func (a *arrivals) take() latencies {
	a.mu.Lock()
	defer a.mu.Unlock()
	return slices.Clone(a.ages)
}

// consume reads a topic until the case ends.
func consume(h *host, env *integration.Env, topic string) *arrivals {
	// A broker that has just made the topic denies some of its partitions for a moment, and a
	// client that began with the others has them wait for the end of its first fetch.
	admin := kadm.NewClient(env.Client(h))
	wait.For(h, time.Minute, "the topic to be there", func() bool {
		starts, err := admin.ListStartOffsets(h.ctx, topic)
		return err == nil && starts.Error() == nil
	})
	client := env.Client(h, kgo.ConsumeTopics(topic), kgo.FetchMinBytes(1),
		kgo.FetchMaxWait(500*time.Millisecond), kgo.FetchIsolationLevel(kgo.ReadCommitted()))
	a := &arrivals{}
	go func() {
		for {
			fetches := client.PollFetches(context.Background())
			if fetches.IsClientClosed() {
				return
			}
			now := time.Now()
			a.mu.Lock()
			fetches.EachRecord(func(r *kgo.Record) {
				if at, ok := readStamp(r.Value); ok {
					a.ages = append(a.ages, now.Sub(at))
				}
			})
			a.mu.Unlock()
		}
	}()
	return a
}

func readStamp(value []byte) (time.Time, bool) {
	_, rest, ok := strings.Cut(string(value[:min(len(value), 100)]), stampPrefix)
	if !ok || len(rest) < 16 {
		return time.Time{}, false
	}
	b, err := hex.DecodeString(rest[:16])
	if err != nil {
		return time.Time{}, false
	}
	return time.Unix(0, int64(binary.BigEndian.Uint64(b))), true
}
