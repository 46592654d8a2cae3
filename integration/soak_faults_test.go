package integration

import (
	"context"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/walpost/walpost/internal/pgserver"
)

// soak injects faults into a relay and its servers until its time is over. Relays, Postgres and the
// brokers have faults of their own at the same time, each in an order that the seed gives.
type soak struct {
	env   *Env
	proxy *Proxy
	line  string // the variable that makes a relay use the proxy
	vars  []string
	relay *Relay // the one that streams, or is about to
	until time.Time

	mu     sync.Mutex
	counts map[string]int
}

// count says that a fault is injected now.
func (s *soak) count(t testing.TB, fault string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.counts[fault]++
	t.Logf("%s: %s", time.Now().Format("15:04:05.0"), fault)
}

// total is how many faults were injected.
func (s *soak) total() (n int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, count := range s.counts {
		n += count
	}
	return n
}

// String lists how often each fault was injected.
func (s *soak) String() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	var parts []string
	for _, fault := range slices.Sorted(maps.Keys(s.counts)) {
		parts = append(parts, fmt.Sprintf("%s %d", fault, s.counts[fault]))
	}
	return strings.Join(parts, ", ")
}

// pause is random, and reports false when the time is over.
func (s *soak) pause(ctx context.Context, random *rand.Rand, least, most time.Duration) bool {
	select {
	case <-ctx.Done():
		return false
	case <-time.After(least + time.Duration(random.Int64N(int64(most-least)))):
		return time.Now().Before(s.until)
	}
}

func (s *soak) run(t testing.TB) *Relay {
	t.Helper()
	return s.env.Run(t, append([]string{s.line}, s.vars...)...)
}

// postgresFaults go on until the time is over. Postgres runs when it returns without an error.
func (s *soak) postgresFaults(ctx context.Context, t testing.TB, random *rand.Rand) error {
	for s.pause(ctx, random, 5*time.Second, 20*time.Second) {
		if err := s.postgresFault(ctx, t, random); err != nil {
			return fmt.Errorf("trouble Postgres: %w", err)
		}
	}
	return nil
}

func (s *soak) postgresFault(ctx context.Context, t testing.TB, random *rand.Rand) error {
	stop := func(fault string, mode pgserver.StopMode) error {
		s.count(t, fault)
		limited, cancel := context.WithTimeout(ctx, 90*time.Second)
		defer cancel()
		if err := s.env.Server.Stop(limited, mode); err != nil {
			return err
		}
		return s.env.Server.Restart(ctx)
	}
	switch random.IntN(6) {
	case 0:
		return stop("Postgres stopped fast", pgserver.Fast)
	case 1:
		return stop("Postgres stopped immediately", pgserver.Immediate)
	case 2:
		s.count(t, "Postgres killed")
		s.env.Server.Kill()
		return s.env.Server.Restart(ctx)
	case 3:
		s.count(t, "links cut for a while")
		s.proxy.CutAfter(func() int64 { return rand.Int64N(200_000) })
		s.proxy.CutNow()
		s.pause(ctx, random, time.Second, 6*time.Second)
		s.proxy.CutAfter(nil)
		return nil
	case 4:
		s.count(t, "links silent")
		s.proxy.Silence()
		return nil
	default:
		s.count(t, "walsender terminated")
		return s.terminate(ctx)
	}
}

// terminate ends the walsender of the slot, if there is one.
func (s *soak) terminate(ctx context.Context) error {
	conn, err := pgx.Connect(ctx, s.env.URL())
	if err != nil {
		return fmt.Errorf("connect to terminate the walsender: %w", err)
	}
	_, err = conn.Exec(ctx, "SELECT pg_terminate_backend(active_pid) FROM pg_replication_slots WHERE slot_name = $1 AND active", s.env.Slot)
	if err != nil {
		err = fmt.Errorf("terminate the walsender: %w", err)
	}
	_ = conn.Close(ctx) // the answer is there
	return err
}

// brokerFaults go on until the time is over. All brokers run and are in sync when it returns
// without an error: with another one gone, partitions would have no leader, and no relay could do
// anything about that.
func (s *soak) brokerFaults(ctx context.Context, t testing.TB, random *rand.Rand) error {
	kafka := s.env.Kafka
	for s.pause(ctx, random, 10*time.Second, 40*time.Second) {
		i := random.IntN(3)
		limited, cancel := context.WithTimeout(ctx, 3*time.Minute)
		var err error
		switch random.IntN(3) {
		case 0:
			s.count(t, "broker killed")
			kafka.Kill(i)
			s.pause(ctx, random, time.Second, 15*time.Second)
			err = kafka.Start(limited, i)
		case 1:
			s.count(t, "broker stopped")
			if err = kafka.Stop(limited, i); err == nil {
				s.pause(ctx, random, time.Second, 15*time.Second)
				err = kafka.Start(limited, i)
			}
		default:
			s.count(t, "broker frozen")
			kafka.Freeze(i)
			s.pause(ctx, random, time.Second, 10*time.Second)
			kafka.Thaw(i)
		}
		if err == nil {
			err = kafka.WaitInSync(limited)
		}
		cancel()
		if err != nil {
			return fmt.Errorf("trouble the brokers: %w", err)
		}
	}
	return nil
}
