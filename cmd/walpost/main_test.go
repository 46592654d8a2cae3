package main

import (
	"os"
	"syscall"
	"testing"
	"testing/synctest"
	"time"
)

func TestSignals(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		name  string
		after []time.Duration // from the first signal to each further one
		ends  bool
	}{
		{"one", nil, false},
		{"the same one twice", []time.Duration{0}, false},
		{"from the group and from a supervisor", []time.Duration{time.Microsecond, oneStop - time.Millisecond}, false},
		{"a second one", []time.Duration{oneStop}, true},
		{"twice, and a second one", []time.Duration{time.Microsecond, time.Second}, true},
	} {
		synctest.Test(t, func(t *testing.T) {
			signals := make(chan os.Signal, 2)
			told, ended := 0, false
			go func() {
				awaitSecond(signals, func() { told++ })
				ended = true
			}()
			signals <- syscall.SIGTERM
			began := time.Now()
			for _, after := range test.after {
				time.Sleep(after - time.Since(began))
				signals <- syscall.SIGTERM
			}
			synctest.Wait()
			if told != 1 || ended != test.ends {
				t.Errorf("%s: told of the first %d times, ended at once: %t", test.name, told, ended)
			}
			close(signals) // for the goroutine
		})
	}
}
