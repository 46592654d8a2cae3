package integration

import (
	"fmt"
	"testing"
	"time"

	"github.com/walpost/walpost/checkpoint"
)

// starts are the positions that relays found stored when they started: what is repeated lies behind
// them.
type starts []start

type start struct {
	at  time.Time
	pos string // nothing before it may be published again
}

// add notes what is stored, before the next relay starts.
func (s *starts) add(t testing.TB, env *Env) {
	t.Helper()
	*s = append(*s, start{time.Now().Truncate(time.Millisecond), posOf(storedPosition(t, env))})
}

// check judges each repeat by the last start before it.
func (s starts) check(t testing.TB, report Report) {
	t.Helper()
	for _, repeat := range report.Repeats {
		last := s[0]
		for _, one := range s {
			if !one.at.After(repeat.At) {
				last = one
			}
		}
		if repeat.At.Before(last.at) || repeat.Pos < last.pos {
			t.Errorf("event at pos %s was repeated at %s, though %s was stored before the start at %s",
				repeat.Pos, repeat.At, last.pos, last.at)
		}
	}
}

// posOf is the lowest pos that a stored position leaves to be published.
func posOf(state checkpoint.State) string {
	if state.Commit != 0 {
		return fmt.Sprintf("%08X-%016X-%08X", state.Timeline, uint64(state.Commit), state.Rows)
	}
	return fmt.Sprintf("%08X-%016X-", state.Timeline, uint64(state.End))
}
