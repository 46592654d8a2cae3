package integration

import (
	"fmt"
	"math"
	"math/rand/v2"
	"testing"
	"time"
)

// TestLinkCut cuts every connection between relay and Postgres after a random number of bytes, under load: in the middle of a
// row, of a look at the catalog, or of a handshake.
func TestLinkCut(t *testing.T) {
	matrix(t, func(t *testing.T, major int, delivery string) { cutTheLink(t, major, delivery, 10) })
}

// TestLinkCutForLong is the same for some minutes.
func TestLinkCutForLong(t *testing.T) {
	long(t)
	matrix(t, func(t *testing.T, major int, delivery string) { cutTheLink(t, major, delivery, 120) })
}

func cutTheLink(t *testing.T, major int, delivery string, cuts int) {
	env := Setup(t, Needs{Postgres: major})
	env.Init(t)
	proxy, line := env.PostgresProxy(t)
	// Small and large numbers alike: a session begins with some 10 KB.
	proxy.CutAfter(func() int64 { return int64(math.Exp(rand.Float64() * math.Log(1<<20))) })
	relay := env.Run(t, line, "WALPOST_DELIVERY="+delivery)
	work := env.Workload(t, WorkloadOptions{Rate: 1500})
	Eventually(t, 10*time.Minute, "the cuts", func() bool {
		if !relay.Running() {
			t.Fatal("the relay has ended")
		}
		return proxy.Cuts() >= cuts
	})
	proxy.CutAfter(nil)
	relay.Ready(t, time.Minute)
	t.Logf("%d cuts, %d reconnects", proxy.Cuts(), reconnects(t, relay))
	whole(t, env, work, relay)
}

// TestHalfOpenLink lets all packets vanish in both directions, and no end notices but by the silence: neither FIN nor RST.
// The relay is back within a minute.
func TestHalfOpenLink(t *testing.T) {
	t.Parallel()
	type one struct {
		name  string
		env   *Env
		proxy *Proxy
		relay *Relay
		work  *Workload
	}
	var all []one // together: they wait for the same minute
	for _, major := range []int{15, 18} {
		for _, delivery := range deliveries {
			o := one{name: fmt.Sprintf("postgres %d, %s", major, delivery)}
			o.env = Setup(t, Needs{Postgres: major, Settings: map[string]string{"wal_sender_timeout": "20s"}})
			o.env.Init(t)
			var line string
			o.proxy, line = o.env.PostgresProxy(t)
			o.relay = o.env.Run(t, line, "WALPOST_DELIVERY="+delivery)
			o.relay.Ready(t, 30*time.Second)
			o.work = o.env.Workload(t, WorkloadOptions{Rate: 200})
			o.work.WaitCommitted(t, 200)
			all = append(all, o)
		}
	}
	start := time.Now()
	for _, o := range all {
		if o.proxy.Silence() == 0 {
			t.Fatalf("%s: there was no connection to silence", o.name)
		}
	}
	for _, o := range all {
		Eventually(t, time.Until(start.Add(time.Minute)), o.name+" to have another stream", func() bool {
			return reconnects(t, o.relay) > 0 && o.relay.IsReady()
		})
		t.Logf("%s: back after %s", o.name, time.Since(start).Round(time.Second))
	}
	for _, o := range all {
		whole(t, o.env, o.work, o.relay)
	}
}
