package integration

import (
	"syscall"
	"testing"
	"time"
)

// TestFrozenRelay stops the relay past the walsender's patience and wakes it up, twice: it goes on
// by itself, and what was on its way when it stopped is not sent again.
func TestFrozenRelay(t *testing.T) {
	t.Parallel()
	all := scenes(t, Needs{Settings: map[string]string{"wal_sender_timeout": "3s"}}, WorkloadOptions{Rate: 400},
		wellShaped)
	for round := range 2 {
		for _, s := range all {
			s.relay.Signal(syscall.SIGSTOP)
		}
		for _, s := range all {
			Eventually(t, time.Minute, s.name+": the walsender to give the relay up",
				func() bool { return walsender(t, s.env) == "" })
		}
		for _, s := range all {
			s.relay.Signal(syscall.SIGCONT)
		}
		await(t, all, time.Minute, "another stream", func(s scene) bool { return reconnects(t, s.relay) > round && s.relay.IsReady() })
		for _, s := range all {
			s.work.WaitCommitted(t, s.work.Committed()+200)
		}
	}
	allWhole(t, all)
}
