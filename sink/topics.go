package sink

import (
	"fmt"
	"sync"
	"sync/atomic"

	"github.com/walpost/walpost/decoder"
)

// topic is a destination of events.
type topic struct {
	name string

	// The resolver sets limit and then resolved, before the first record is sent.
	limit    atomic.Int64 // largest batch, in bytes; 0 before
	resolved atomic.Bool

	// See partitioner, which the client calls.
	partitions atomic.Int32 // over which keys are spread; 0 before the first record
	offered    atomic.Int32 // which the client knows of

	inFlight  inFlight
	published atomic.Uint64
}

// ready reports whether a record may be sent to the topic at once.
func (t *topic) ready() bool { return t.resolved.Load() && !t.grown() }

// topics decides to which topic an event goes, and remembers the topics seen so far.
type topics struct {
	template *Template
	state    string // the state topic, where no event may go
	name     []byte // of the topic asked for last; it belongs to the goroutine that produces

	mu     sync.Mutex
	byName map[string]*topic
}

// of returns the topic of an event. Only the goroutine that produces calls it.
func (t *topics) of(e *decoder.Event) (*topic, error) {
	var err error
	if t.name, err = t.template.append(t.name[:0], e); err != nil {
		return nil, err
	}
	t.mu.Lock()
	known := t.byName[string(t.name)]
	t.mu.Unlock()
	if known != nil {
		return known, nil
	}
	name := string(t.name)
	if err := checkTopic(name); err != nil {
		return nil, err
	}
	if name == t.state {
		return nil, fmt.Errorf("topic %q is walpost's own state topic", name)
	}
	return t.named(name), nil
}

// named returns the topic of a name, seen before or not.
func (t *topics) named(name string) *topic {
	t.mu.Lock()
	defer t.mu.Unlock()
	known, ok := t.byName[name]
	if !ok {
		known = &topic{name: name}
		t.byName[name] = known
	}
	return known
}

// known returns a topic that an event has named, or nil.
func (t *topics) known(name string) *topic {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.byName[name]
}

// batchLimit tells the client the largest batch of a topic: of one to which a record was sent, or
// of the state topic.
func (t *topics) batchLimit(name string) int32 {
	limit := int64(defaultLimit)
	if known := t.known(name); known != nil {
		limit = known.limit.Load()
	}
	return int32(max(limit-batchOverhead, 512))
}

// stalled returns the topics that have events in flight of which none was confirmed for long. A
// topic that is not resolved is not among them: the resolver asks for it already.
func (t *topics) stalled() (names []string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for name, topic := range t.byName {
		if topic.resolved.Load() && topic.inFlight.idle() > stall {
			names = append(names, name)
		}
	}
	return names
}

func (t *topics) published() map[string]uint64 {
	t.mu.Lock()
	defer t.mu.Unlock()
	m := make(map[string]uint64, len(t.byName))
	for name, topic := range t.byName {
		m[name] = topic.published.Load()
	}
	return m
}
