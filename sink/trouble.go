package sink

import (
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
)

// trouble knows for which partitions the brokers do not take events, and why. The client tries
// again and says so only in its debug log, which costs time for each request. So the sink asks for
// that log only while events wait.
type trouble struct {
	on atomic.Bool // written under mu

	mu      sync.Mutex
	answers map[string]string // of the brokers, for the first batch of a partition
}

// troubles is how many partitions are remembered. One is named.
const troubles = 100

// watch says whether events wait. If none do, there is no trouble.
func (t *trouble) watch(on bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.on.Swap(on) != on {
		t.answers = map[string]string{}
	}
}

// set notes the last answer for a partition; empty = the brokers took the batch.
func (t *trouble) set(topic, partition, answer string) {
	key := fmt.Sprintf("topic %q, partition %s", topic, partition)
	t.mu.Lock()
	defer t.mu.Unlock()
	if _, known := t.answers[key]; answer == "" {
		delete(t.answers, key)
	} else if known || len(t.answers) < troubles && t.on.Load() {
		t.answers[key] = answer
	}
}

// reason says why the events of one partition wait; empty = none do.
func (t *trouble) reason() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	if len(t.answers) == 0 {
		return ""
	}
	partition := slices.Min(slices.Collect(maps.Keys(t.answers)))
	others := ""
	if n := len(t.answers) - 1; n > 0 {
		others = fmt.Sprintf(" (and %d more)", n)
	}
	return fmt.Sprintf("waiting for %s%s: %s", partition, others, t.answers[partition])
}

// What the client logs of the answer to a produce request, and of a partition that the brokers do
// not offer.
const (
	produced   = "produced" // at the level of debug
	producedTo = "to"
)

// hear reads a line of the client's log.
func (t *trouble) hear(msg string, keyvals []any) {
	if !t.on.Load() {
		return
	}
	switch msg {
	case produced:
		if to, ok := keyval(keyvals, producedTo).(string); ok {
			t.parse(to)
		}
	case loadFailed:
		topic, _ := keyval(keyvals, "topic").(string)
		if err, ok := keyval(keyvals, "err").(error); ok {
			t.set(topic, fmt.Sprint(keyval(keyvals, "partition")), err.Error())
		}
	}
}

// keyval returns the value of a key in a line of the client's log, or nil.
func keyval(keyvals []any, key string) any {
	if at := slices.Index(keyvals, any(key)); at >= 0 && at+1 < len(keyvals) {
		return keyvals[at+1]
	}
	return nil
}

// outcomes finds topic[ and partition{outcome} in topic[partition{outcome}, ...], ...
var outcomes = regexp.MustCompile(`([\w.-]+)\[|(\d+)\{([^}]*)\}`)

// parse reads the outcomes of batches: from=>to, or retrying@from,count(answer).
func (t *trouble) parse(to string) {
	topic := ""
	for _, found := range outcomes.FindAllStringSubmatch(to, -1) {
		if found[1] != "" {
			topic = found[1]
			continue
		}
		switch answer, failed := strings.CutPrefix(found[3], "retrying@"); {
		case failed:
			_, answer, _ = strings.Cut(answer, "(")
			t.set(topic, found[2], strings.TrimSuffix(answer, ")"))
		case strings.Contains(answer, "=>") && !strings.HasPrefix(answer, "skipped@"):
			t.set(topic, found[2], "")
		}
	}
}
