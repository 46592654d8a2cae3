package integration

import (
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"strconv"
	"syscall"
	"testing"
	"time"
)

// soakRound bounds what the checker has to remember: a longer soak has several rounds, each with
// servers of its own.
const soakRound = 20 * time.Minute

// TestSoak injects random faults into a relay, Postgres 18 and three brokers for WALPOST_TEST_SOAK,
// from WALPOST_TEST_SEED. An even seed has at-least-once delivery, an odd one exactly-once; the
// next round has the next seed.
func TestSoak(t *testing.T) {
	duration, err := time.ParseDuration(os.Getenv("WALPOST_TEST_SOAK"))
	if err != nil {
		untested(t, "takes as long as WALPOST_TEST_SOAK says, such as 1h")
	}
	seed := rand.Uint64N(1_000_000)
	if text := os.Getenv("WALPOST_TEST_SEED"); text != "" {
		if seed, err = strconv.ParseUint(text, 10, 64); err != nil {
			t.Fatal(err)
		}
	}
	for end := time.Now().Add(duration); time.Now().Before(end) && !t.Failed(); seed++ {
		delivery := deliveries[seed%2]
		t.Run(fmt.Sprintf("seed %d, %s", seed, delivery), func(t *testing.T) {
			soakOnce(t, seed, delivery, min(time.Until(end), soakRound))
		})
	}
}

func soakOnce(t *testing.T, seed uint64, delivery string, duration time.Duration) {
	env := Setup(t, Needs{
		Postgres: 18, OwnPostgres: true, Kafka: OwnThree,
		Settings: map[string]string{"fsync": "off", "wal_sender_timeout": "5s"},
	})
	env.Init(t)
	awaitInSync(t, env)
	s := &soak{env: env, vars: []string{"WALPOST_DELIVERY=" + delivery, smallBound}, counts: map[string]int{}}
	s.proxy, s.line = env.PostgresProxy(t)
	s.relay = s.run(t)
	s.relay.Ready(t, 2*time.Minute)
	work := env.Workload(t, WorkloadOptions{Rate: 300, Writers: 3, MaxRows: 20, Outages: true, Seed: seed + 1})
	work.WaitCommitted(t, 300)

	s.until = time.Now().Add(duration)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	ended := make(chan error, 2)
	go func() { ended <- s.postgresFaults(ctx, t, rand.New(rand.NewPCG(seed, 1))) }()
	go func() { ended <- s.brokerFaults(ctx, t, rand.New(rand.NewPCG(seed, 2))) }()
	s.relayFaults(ctx, t, rand.New(rand.NewPCG(seed, 3)), delivery == exactly)
	for range 2 {
		if err := <-ended; err != nil {
			t.Fatal(err)
		}
	}
	s.relay.Ready(t, 3*time.Minute)
	work.WaitCommitted(t, work.Committed()+300)
	work.Stop(t)
	report := env.Check(t, work)
	s.relay.Stop(t)
	again := env.Check(t, work)
	repeats := 0
	if delivery != exactly {
		// A third of a second for each fault; the stop repeats nothing.
		repeats = min(len(report.Repeats), 100*s.total())
	}
	again.Assert(t, repeats)
	t.Logf("seed %d, %s, %s: %d events, %d repeats; %s", seed, delivery, duration.Round(time.Second),
		again.Expected, len(again.Repeats), s)
}

// relayFaults go on until the time is over. A relay runs when it returns.
func (s *soak) relayFaults(ctx context.Context, t *testing.T, random *rand.Rand, fencing bool) {
	t.Helper()
	for s.pause(ctx, random, 2*time.Second, 12*time.Second) {
		if !s.relay.Running() {
			t.Fatalf("the relay has ended with %d:\n%s", s.relay.Wait(t, time.Second), lastLines(s.relay.Log(), 30))
		}
		switch random.IntN(4) {
		case 0:
			s.count(t, "relay killed")
			s.relay.Kill()
			s.relay = s.run(t)
		case 1:
			s.count(t, "relay terminated")
			s.terminated(t, s.relay, false)
			s.relay = s.run(t)
		case 2:
			s.count(t, "relay frozen")
			s.relay.Signal(syscall.SIGSTOP)
			s.pause(ctx, random, time.Second, 12*time.Second)
			s.relay.Signal(syscall.SIGCONT)
		default:
			s.second(ctx, t, random, fencing)
		}
	}
}

// terminated ends a relay in order. With its servers away it may give up what is in flight, which
// is code 1; beside another relay it may have been fenced by that, which is code 3.
func (s *soak) terminated(t *testing.T, relay *Relay, fenced bool) {
	t.Helper()
	relay.Term()
	code := relay.Wait(t, time.Minute)
	switch {
	case code == 0:
	case code == 1, code == 3 && fenced:
		s.count(t, fmt.Sprintf("(ended with code %d)", code))
	default:
		t.Fatalf("the relay ended with %d after SIGTERM:\n%s", code, lastLines(relay.Log(), 30))
	}
}

// second starts another relay beside the first, which then goes one way or another.
func (s *soak) second(ctx context.Context, t *testing.T, random *rand.Rand, fencing bool) {
	t.Helper()
	first := s.relay
	s.relay = s.run(t)
	s.pause(ctx, random, time.Second, 5*time.Second)
	switch random.IntN(3) {
	case 0:
		s.count(t, "second relay, first killed")
		first.Kill()
	case 1:
		s.count(t, "second relay, first terminated")
		s.terminated(t, first, fencing)
	default:
		s.count(t, "second relay, first frozen")
		first.Signal(syscall.SIGSTOP)
		s.pause(ctx, random, 6*time.Second, 15*time.Second)
		if !fencing { // what it had in flight could still arrive before the same events of the other: nothing fences it
			first.Kill()
			return
		}
		first.Signal(syscall.SIGCONT)
		s.pause(ctx, random, time.Second, 5*time.Second)
		s.terminated(t, first, fencing)
	}
	// The two took turns, and it was the one to be fenced.
	if !s.relay.Running() && fencing && s.relay.Wait(t, time.Second) == 3 {
		s.count(t, "(ended with code 3)")
		s.relay = s.run(t)
	}
}
