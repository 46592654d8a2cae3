package integration

import (
	"testing"
	"time"

	"github.com/walpost/walpost/integration/wait"
)

// scene is a relay with its servers, the line between it and Postgres, and a load. Scenes of one
// test play together: most of their time is waiting for the same timeouts.
type scene struct {
	name  string
	env   *Env
	proxy *Proxy
	relay *Relay
	work  *Workload
}

// scenes are ready and under load: both versions of Postgres with both deliveries.
func scenes(t *testing.T, needs Needs, load WorkloadOptions, shape func(*Proxy)) []scene {
	t.Helper()
	var all []scene
	for _, c := range combinations() {
		needs.Postgres = c.major
		s := scene{name: c.String(), env: Setup(t, needs)}
		s.env.Init(t)
		var line string
		s.proxy, line = s.env.PostgresProxy(t)
		shape(s.proxy)
		s.relay = s.env.Run(t, line, "WALPOST_DELIVERY="+c.delivery)
		all = append(all, s)
	}
	for i := range all {
		all[i].relay.Ready(t, time.Minute)
		all[i].work = all[i].env.Workload(t, load)
		all[i].work.WaitCommitted(t, 100)
	}
	return all
}

func wellShaped(*Proxy) {}

// await waits for all scenes together, at most so long from now.
func await(t *testing.T, all []scene, limit time.Duration, what string, condition func(s scene) bool) {
	t.Helper()
	start, deadline := time.Now(), wait.In(limit)
	for _, s := range all {
		wait.Until(t, deadline, s.name+": "+what, func() bool {
			if !s.relay.Running() {
				t.Fatalf("%s: the relay has ended", s.name)
			}
			return condition(s)
		})
		t.Logf("%s: %s, after %s", s.name, what, time.Since(start).Round(100*time.Millisecond))
	}
}

// allWhole ends the scenes: in each everything is there, once and in order.
func allWhole(t *testing.T, all []scene) {
	t.Helper()
	for _, s := range all {
		t.Log(s.name)
		whole(t, s.env, s.work, s.relay)
	}
}
