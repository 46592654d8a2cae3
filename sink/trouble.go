package sink

import (
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
)

// trouble knows for which partitions the brokers do not take events, and why. The client tries
// again and says so only in its debug log, which costs time for each request. So the sink asks for
// that log only while events wait.
type trouble struct {
	on atomic.Bool

	mu      sync.Mutex
	answers map[place]string // of the brokers, for the first batch of a partition
}

// place is a partition.
type place struct {
	topic     string
	partition int32
}

// troubles is how many partitions are remembered. One is named.
const troubles = 100

// watch says whether events wait. If none do, there is no trouble.
func (t *trouble) watch(on bool) {
	if t.on.Swap(on) == on || on {
		return
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	t.answers = nil
}

// set notes the last answer for a partition; empty = the brokers took the batch.
func (t *trouble) set(p place, answer string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	_, known := t.answers[p]
	switch {
	case answer == "":
		delete(t.answers, p)
	case known || len(t.answers) < troubles && t.on.Load():
		if t.answers == nil {
			t.answers = map[place]string{}
		}
		t.answers[p] = answer
	}
}

// reason says why the events of one partition wait; empty = none do.
func (t *trouble) reason() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	if len(t.answers) == 0 {
		return ""
	}
	p := slices.MinFunc(slices.Collect(maps.Keys(t.answers)), func(a, b place) int {
		if c := strings.Compare(a.topic, b.topic); c != 0 {
			return c
		}
		return int(a.partition - b.partition)
	})
	others := ""
	if n := len(t.answers) - 1; n > 0 {
		others = fmt.Sprintf(" (and %d more)", n)
	}
	return fmt.Sprintf("waiting for topic %q, partition %d%s: %s", p.topic, p.partition, others, t.answers[p])
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
		partition, known := keyval(keyvals, "partition").(int32)
		if err, ok := keyval(keyvals, "err").(error); ok && known {
			t.set(place{topic, partition}, err.Error())
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
		partition, _ := strconv.ParseInt(found[2], 10, 32)
		p := place{topic, int32(partition)}
		switch answer, failed := strings.CutPrefix(found[3], "retrying@"); {
		case failed:
			_, answer, _ = strings.Cut(answer, "(")
			t.set(p, strings.TrimSuffix(answer, ")"))
		case strings.Contains(answer, "=>") && !strings.HasPrefix(answer, "skipped@"):
			t.set(p, "")
		}
	}
}
