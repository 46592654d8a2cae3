package relay

import (
	"bytes"
	"errors"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/rs/zerolog"

	"github.com/walpost/walpost/cdc"
)

// TestOutageIsSaidAgain: an outage gives its reason once, another one at once, and each of them every five minutes.
func TestOutageIsSaidAgain(t *testing.T) {
	t.Parallel()
	refused := func(port int) error { return fmt.Errorf("read tcp 127.0.0.1:%d: connection refused", port) }
	password := errors.New("password authentication failed")
	for name, report := range map[string]func(*Relay, *session, error){
		"no session":    func(r *Relay, _ *session, err error) { r.report(err) },
		"no inspection": func(_ *Relay, s *session, err error) { s.cannotInspect(err) },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				var log bytes.Buffer
				r := New(Config{Log: zerolog.New(&log)})
				s := &session{r: r, log: r.log}
				for i := range 11 * 60 {
					report(r, s, refused(1000+i))
					if i > 60 {
						report(r, s, password)
					}
					time.Sleep(time.Second)
				}
				for reason, want := range map[string]int{"connection refused": 3, "password": 2} {
					if n := strings.Count(log.String(), reason); n != want {
						t.Errorf("%q: %d lines in eleven minutes, want %d:\n%s", reason, n, want, log.String())
					}
				}
			})
		})
	}
}

// TestWhoHasTheSlot: the process that served our last stream is no other relay.
func TestWhoHasTheSlot(t *testing.T) {
	t.Parallel()
	var log bytes.Buffer
	r := New(Config{Log: zerolog.New(&log)})
	r.report(&heldError{"walpost", 41, false})
	r.report(&heldError{"walpost", 42, false})
	r.report(&heldError{"walpost", 43, true})
	if got := log.String(); strings.Count(got, "another relay") != 1 || !strings.Contains(got, "pg_terminate_backend(43)") {
		t.Errorf("the log says:\n%s", got)
	}
	if !transient(&heldError{}) || !errors.Is(&heldError{}, cdc.ErrSlotInUse) {
		t.Error("a slot that is held is waited for")
	}
}
