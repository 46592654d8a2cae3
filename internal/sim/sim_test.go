package sim

import (
	"flag"
	"fmt"
	"runtime"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

var (
	seeds = flag.Uint64("seeds", 300, "how many runs")
	first = flag.Uint64("seed", 0, "the first seed")
	steps = flag.Int("steps", 40, "how many things happen in a run")
	whole = flag.Bool("noshrink", false, "tell the whole story of a failed run")
)

// play plays one run in a bubble of its own.
func play(t *testing.T, o Options) (result Result) {
	t.Helper()
	synctest.Test(t, func(*testing.T) { result = Run(o) })
	return result
}

// TestSimulation plays many runs. Even seeds are of at least once, odd ones of exactly once.
func TestSimulation(t *testing.T) {
	var next, events, faults, runs atomic.Uint64
	began := time.Now()
	t.Run("runs", func(t *testing.T) {
		for worker := range runtime.GOMAXPROCS(0) {
			t.Run(fmt.Sprint(worker), func(t *testing.T) {
				t.Parallel()
				for n := next.Add(1) - 1; n < *seeds && !t.Failed(); n = next.Add(1) - 1 {
					o := Options{Seed: *first + n, Steps: *steps}
					r := play(t, o)
					if r.Failed() {
						next.Store(*seeds)
						report(t, o, r)
					}
					runs.Add(1)
					events.Add(uint64(r.Events))
					faults.Add(uint64(r.Faults))
				}
			})
		}
	})
	t.Logf("%d runs, %d events, %d faults, in %s", runs.Load(), events.Load(), faults.Load(), time.Since(began).Round(time.Second))
	if *seeds > 100 && (events.Load() < *seeds || faults.Load() < *seeds) {
		t.Error("hardly anything happened: these runs prove nothing")
	}
}

// report shortens the story of a failed run: steps that it fails without are left out.
func report(t *testing.T, o Options, r Result) {
	t.Helper()
	fails := func(o Options) (Result, bool) {
		for range 3 { // the order of goroutines is not the seed's
			if again := play(t, o); again.Failed() {
				return again, true
			}
		}
		return Result{}, false
	}
	shortest := r
	o.Skip = make([]bool, o.Steps)
	for step := range o.Skip {
		if *whole {
			break
		}
		o.Skip[step] = true
		if again, failed := fails(o); failed {
			shortest = again
		} else {
			o.Skip[step] = false
		}
	}
	t.Errorf("seed %d (go test ./internal/sim -run TestSimulation -seed %d -seeds 1), what it fails of:\n%s", o.Seed, o.Seed, shortest)
}
