// Package wait waits, with deadlines that a busy machine does not break: time in which programs
// waited for a processor, a disk or memory does not count, up to a limit. On a quiet machine a
// deadline is what it says.
package wait

import (
	"testing"
	"time"
)

// most is by how much a busy machine may stretch a deadline.
const most = 4

// interval is how often a condition is asked for.
const interval = 20 * time.Millisecond

// Deadline ends after a time in which the machine could work.
type Deadline struct {
	limit    time.Duration
	began    time.Time
	pressure time.Duration // of the machine, when it began
}

// In starts a deadline.
func In(limit time.Duration) Deadline {
	return Deadline{limit: limit, began: time.Now(), pressure: pressure()}
}

// Over reports whether the time is over.
func (d Deadline) Over() bool {
	took := time.Since(d.began)
	return took > d.limit && (took > most*d.limit || took-d.stalled(took) > d.limit)
}

// stalled is for how long somebody on this machine had to wait. Where the kernel does not say, it
// is most of the time.
func (d Deadline) stalled(took time.Duration) time.Duration {
	now := pressure()
	if now == 0 {
		return took * (most - 1) / most
	}
	return min(now-d.pressure, took)
}

// String says how long it was.
func (d Deadline) String() string {
	took := time.Since(d.began).Round(100 * time.Millisecond)
	return took.String() + " (of which the machine was overloaded for " + d.stalled(took).Round(100*time.Millisecond).String() + ")"
}

// For polls a condition and fails the test if it does not come true in time. It is for what nothing
// announces.
func For(t testing.TB, timeout time.Duration, what string, condition func() bool) {
	t.Helper()
	Until(t, In(timeout), what, condition)
}

// Until is For with a deadline that began before.
func Until(t testing.TB, deadline Deadline, what string, condition func() bool) {
	t.Helper()
	for !condition() {
		if deadline.Over() {
			t.Fatalf("waited %s in vain for %s", deadline, what)
		}
		time.Sleep(interval)
	}
}

// Closed waits for a channel to be closed, and reports false if it is not in time.
func Closed(done <-chan struct{}, timeout time.Duration) bool {
	deadline := In(timeout)
	for {
		select {
		case <-done:
			return true
		case <-time.After(interval):
			if deadline.Over() {
				return false
			}
		}
	}
}
