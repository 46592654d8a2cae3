package sink

import (
	"regexp"
	"sync"
	"time"
)

const (
	// noticeEvery is the time between two lines of the log that give the same reason.
	noticeEvery = 5 * time.Minute
	// noticeReasons is how many reasons one notice gives in that time.
	noticeReasons = 8
)

// Notice decides when the log tells of something that lasts: at once, again for another reason, and
// every five minutes. The zero value is ready. Any goroutine may use it.
type Notice struct {
	mu    sync.Mutex
	since time.Time            // when it began; zero = it has not
	given map[string]time.Time // when the log last gave each reason
}

// Due reports whether the log has to give a reason now. Two reasons that differ only in numbers,
// such as a port, a position or a duration, are the same. A subject is compared as it is.
func (n *Notice) Due(subject, reason string) bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	now := time.Now()
	if n.since.IsZero() {
		n.since, n.given = now, map[string]time.Time{}
	}
	for known, at := range n.given {
		if now.Sub(at) >= noticeEvery {
			delete(n.given, known)
		}
	}
	reason = subject + ": " + numbers.ReplaceAllString(reason, "#")
	if _, known := n.given[reason]; known || len(n.given) == noticeReasons {
		return false
	}
	n.given[reason] = now
	return true
}

// Lasted is for how long it has lasted; zero = it does not.
func (n *Notice) Lasted() time.Duration {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.since.IsZero() {
		return 0
	}
	return time.Since(n.since)
}

// End ends it, and returns for how long it lasted; zero = it was over already.
func (n *Notice) End() time.Duration {
	lasted := n.Lasted()
	n.mu.Lock()
	defer n.mu.Unlock()
	n.since, n.given = time.Time{}, nil
	return lasted
}

// numbers are what changes in a reason while it stays the same: also addresses, LSNs and times.
var numbers = regexp.MustCompile(`([0-9A-Fa-f]*[0-9][0-9A-Fa-f.:/]*(ns|µs|ms|h|m|s)?)+`)
