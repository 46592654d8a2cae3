package main

import (
	"fmt"
	"time"

	"github.com/walpost/walpost/integration/process"
)

// calm is what a relay costs that has little or nothing to do, and how fast it starts.
type calm struct {
	start       []time.Duration // from the start of the process to the arrival of the first event at a consumer
	lone        latencies       // of single events, each to a relay that has been idle
	floor       latencies       // of single records of a producer alone
	cpu         float64         // share of one core
	wakeups     float64         // a second: moments apart in which it ran
	residentMiB float64
	commit      latencies // of the INSERTs of the single events
	busy        float64
}

const (
	startTurns = 5
	loneEvents = 40
	loneEvery  = 300 * time.Millisecond
	idleSettle = 12 * time.Second // after it, what the start allocated has gone
	idleTime   = 30 * time.Second
)

// measureCalm starts relays against running servers, sends single events, and then leaves the last
// relay alone.
func measureCalm(delivery string) func(h *host, opts options, out *report) {
	return func(h *host, opts options, out *report) {
		env := serversFor(h, opts, opts.Postgres, nil, 0)
		env.Init(h)
		backlog{topics: 1, partitions: 6}.createTopics(h, env, env.Prefix)
		arrivals := consume(h, env, env.Prefix+"order0")
		conn := env.Connect(h)
		settle()
		c := calm{busy: quiet()}
		insert := func() {
			_, err := conn.Exec(h.ctx, "INSERT INTO "+env.Table+` (id, aggregatetype, aggregateid, type, payload)
				VALUES (gen_random_uuid(), 'order0', 'key', 'Placed', jsonb_build_object('a', $1::text))`, stamp())
			if err != nil {
				h.Fatal(err)
			}
		}
		next := func() time.Duration {
			for range 3000 {
				if ages := arrivals.take(); len(ages) > 0 {
					arrivals.reset()
					return ages[0]
				}
				time.Sleep(time.Millisecond)
			}
			h.Fatal("an event did not arrive within three seconds")
			return 0
		}
		producer := env.Client(h, producerOptions(0)...)
		for range loneEvents {
			time.Sleep(loneEvery)
			produceStamped(h, producer, env.Prefix+"order0")
			c.floor = append(c.floor, next())
		}
		var relay *process.Relay
		for range startTurns {
			if relay != nil {
				relay.Stop(h)
			}
			insert()
			time.Sleep(100 * time.Millisecond)
			start := time.Now()
			relay = env.Run(h, append([]string{"WALPOST_DELIVERY=" + delivery}, opts.Set...)...)
			next()
			c.start = append(c.start, time.Since(start))
		}
		relay.Ready(h, time.Minute)
		for range loneEvents {
			time.Sleep(loneEvery)
			start := time.Now()
			insert()
			c.commit = append(c.commit, time.Since(start))
			c.lone = append(c.lone, next())
		}
		time.Sleep(idleSettle)
		cpu := busyTime(relay.PID())
		c.wakeups = float64(wakeups(relay.PID(), idleTime)) / idleTime.Seconds()
		c.cpu = (busyTime(relay.PID()) - cpu).Seconds() / idleTime.Seconds()
		c.residentMiB = memoryMiB(relay.PID(), "VmRSS")
		relay.Stop(h)
		out.calm(h.name, fmt.Sprintf("walpost, %s", delivery), c)
	}
}
