package wait

import (
	"testing"
	"time"
)

func TestSomeTotal(t *testing.T) {
	t.Parallel()
	text := "some avg10=26.74 avg60=19.33 avg300=20.01 total=5714174256\nfull avg10=0.00 avg60=0.00 avg300=0.00 total=7\n"
	if got := someTotal(text); got != 5714174256*time.Microsecond {
		t.Errorf("got %s", got)
	}
	for _, text := range []string{"", "some", "total=5", "some total=x"} {
		if got := someTotal(text); got != 0 {
			t.Errorf("%q: got %s", text, got)
		}
	}
}

// TestDeadline: it is never over before its limit, and always over after some times its limit.
func TestDeadline(t *testing.T) {
	t.Parallel()
	const limit = 10 * time.Second
	for ago, want := range map[time.Duration]bool{limit / 2: false, most*limit + time.Second: true} {
		d := In(limit)
		d.began = d.began.Add(-ago)
		if d.Over() != want {
			t.Errorf("%s after it began: over is %t", ago, !want)
		}
	}
	quiet := Deadline{limit: limit, began: time.Now().Add(-2 * limit), pressure: pressure()}
	if pressure() > 0 && !quiet.Over() {
		t.Error("a deadline on a machine without any pressure is not over after twice its limit")
	}
	overloaded := Deadline{limit: limit, began: time.Now().Add(-2 * limit), pressure: pressure() - 2*limit}
	if overloaded.Over() {
		t.Error("a deadline on an overloaded machine is over though nobody could do anything")
	}
}

func TestClosed(t *testing.T) {
	t.Parallel()
	done := make(chan struct{})
	if Closed(done, time.Millisecond) {
		t.Error("it is open")
	}
	close(done)
	if !Closed(done, time.Hour) {
		t.Error("it is closed")
	}
}
