package sink

import (
	"fmt"
	"testing"
	"testing/synctest"
	"time"
)

// TestNotice: at once, for another reason, and every five minutes.
func TestNotice(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var n Notice
		say := func(reason string, want bool) {
			t.Helper()
			if got := n.Due("", reason); got != want {
				t.Errorf("%s, %s after the beginning: due %t, want %t", reason, n.Lasted(), got, want)
			}
		}
		if n.Lasted() != 0 || n.End() != 0 {
			t.Error("it lasts before it has begun")
		}
		say("dial tcp 10.0.0.1:5432: connect: connection refused", true)
		say("dial tcp 10.0.0.1:5432: connect: connection refused", false)
		say("read tcp 10.0.0.7:41234->10.0.0.1:5432: connection reset by peer", true)
		say("read tcp 10.0.0.7:41310->10.0.0.1:5432: connection reset by peer", false)
		say("read tcp [2001:db8::7]:41310->[2001:db8::1]:5432: connection reset by peer", true)
		say("read tcp [2001:db8::a]:41:->[2001:db8::1]:5432: connection reset by peer", false)
		say("waiting since 0/1A2B3C for 59s", true)
		say("waiting since 0/22FF for 1m3.5s", false)
		say("the server is starting up", true)
		if !n.Due("orders2", "waiting") || !n.Due("orders3", "waiting") || n.Due("orders3", "waiting") {
			t.Error("a number in the name of a topic counts, and once")
		}
		time.Sleep(noticeEvery - time.Second)
		say("the server is starting up", false)
		time.Sleep(time.Second)
		say("the server is starting up", true)
		say("the server is starting up", false)
		if lasted := n.End(); lasted != noticeEvery {
			t.Errorf("it lasted %s", lasted)
		}
		say("the server is starting up", true)
	})
}

// TestNoticeOfManyReasons: reasons that take turns, or never come twice, do not fill the log.
func TestNoticeOfManyReasons(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var n Notice
		lines := 0
		for i := range 600 {
			another := "reason " + string(rune('g'+i%20)) + fmt.Sprint(i)
			for _, reason := range []string{"broker-a does not answer", "broker-b does not answer", another} {
				if n.Due("", reason) {
					lines++
				}
			}
			time.Sleep(time.Second)
		}
		if most := 2 * noticeReasons; lines > most {
			t.Errorf("%d lines in ten minutes, want %d at most", lines, most)
		}
	})
}
