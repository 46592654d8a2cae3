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
	said  map[string]time.Time // when each reason was given
}

// Due reports whether the log has to give a reason now. Two that differ in numbers alone are the
// same: a port, a position, or how long something has lasted. A subject is compared as it is.
func (n *Notice) Due(subject, reason string) bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	now := time.Now()
	if n.since.IsZero() {
		n.since, n.said = now, map[string]time.Time{}
	}
	for known, at := range n.said {
		if now.Sub(at) >= noticeEvery {
			delete(n.said, known)
		}
	}
	reason = subject + ": " + numbers.ReplaceAllString(reason, "#")
	if _, known := n.said[reason]; known || len(n.said) == noticeReasons {
		return false
	}
	n.said[reason] = now
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

// End ends it, and returns for how long it lasted; zero = it was over.
func (n *Notice) End() time.Duration {
	lasted := n.Lasted()
	n.mu.Lock()
	defer n.mu.Unlock()
	n.since, n.said = time.Time{}, nil
	return lasted
}

// numbers are what changes in a reason while it stays the same: also addresses, LSNs and times.
var numbers = regexp.MustCompile(`([0-9A-Fa-f]*[0-9][0-9A-Fa-f.:/]*(ns|µs|ms|h|m|s)?)+`)
