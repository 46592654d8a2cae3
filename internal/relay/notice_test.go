package relay

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/rs/zerolog"

	"github.com/walpost/walpost/cdc"
	"github.com/walpost/walpost/sink"
)

// TestOutageIsSaidAgain: an outage gives its reason once, another one at once, and each of them
// every five minutes.
func TestOutageIsSaidAgain(t *testing.T) {
	t.Parallel()
	refused := func(port int) error { return fmt.Errorf("read tcp 127.0.0.1:%d: connection refused", port) }
	password := errors.New("password authentication failed")
	for name, report := range map[string]func(*session, error){
		"no session":    func(s *session, err error) { s.r.report(err, outage, s.said) },
		"no inspection": (*session).cannotInspect,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				var log bytes.Buffer
				r := New(Config{Log: zerolog.New(&log)})
				s := r.newSession(newHandover())
				for i := range 11 * 60 {
					report(s, refused(1000+i))
					if i > 60 {
						report(s, password)
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
	h := newHandover()
	r.report(&heldError{"walpost", 41, false}, slotHeld, h.said)
	r.report(&heldError{"walpost", 42, false}, slotHeld, h.said)
	r.report(&heldError{"walpost", 43, true}, slotHeld, h.said)
	if got := log.String(); strings.Count(got, "another relay") != 1 || !strings.Contains(got, "pg_terminate_backend(43)") {
		t.Errorf("the log says:\n%s", got)
	}
	if classify(&heldError{}).class != slotHeld || !errors.Is(&heldError{}, cdc.ErrSlotInUse) {
		t.Error("a slot that is held is waited for")
	}
}

// TestStallIsSaidAgain: that events wait is said once, and every five minutes while it lasts; a
// stall that comes back is news.
func TestStallIsSaidAgain(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var log bytes.Buffer
		r := New(Config{StateTopic: "state", Log: zerolog.New(&log)})
		out, err := sink.New(sink.Config{
			Topic: new(sink.Template), Health: sink.NewHealth(zerolog.Nop()), Log: zerolog.Nop(),
			Dial: func(context.Context, string, string) (net.Conn, error) { return nil, errors.New("no network") },
		})
		if err != nil {
			t.Fatal(err)
		}
		defer out.Close()
		s := r.newSession(handover{out: out})
		began := time.Now()
		s.saving.Store(&began)
		for range 11 * 60 {
			s.sayStall()
			time.Sleep(time.Second)
		}
		if n := strings.Count(log.String(), "nothing is lost"); n != 3 {
			t.Errorf("%d lines in eleven minutes, want 3:\n%s", n, log.String())
		}
		s.saving.Store(nil)
		if s.sayStall() {
			t.Error("a stall that is over")
		}
		s.saving.Store(&began)
		s.sayStall()
		if n := strings.Count(log.String(), "nothing is lost"); n != 4 {
			t.Errorf("%d lines, want 4:\n%s", n, log.String())
		}
	})
}
