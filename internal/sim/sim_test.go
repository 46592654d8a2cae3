package sim

import (
	"testing"
	"testing/synctest"
)

func play(t *testing.T, o Options) (result Result) {
	t.Helper()
	synctest.Test(t, func(*testing.T) { result = Run(o) })
	return result
}

func TestSimulation(t *testing.T) {
	events, faults := 0, 0
	for seed := range uint64(300) {
		r := play(t, Options{Seed: seed, Steps: 40})
		if r.Failed() {
			t.Fatalf("seed %d:\n%s", seed, r)
		}
		events += r.Events
		faults += r.Faults
	}
	t.Logf("%d events, %d faults", events, faults)
}
