package checker

import (
	"bytes"
	"crypto/sha256"
	"fmt"
	"regexp"

	"github.com/twmb/franz-go/pkg/kgo"
)

// Checker compares records with the truth. Records are added partition by partition in the order of
// their offsets; partitions may be interleaved.
type Checker struct {
	truth  *Truth
	report Report

	seen    map[string]first       // by event id
	next    map[topicKey]int       // rank that the key must show next
	lastPos map[placeSource]string // of the last record that was not a repeat
	sources map[string]bool
}

// first is the first record of an event.
type first struct {
	offset int64
	pos    string
}

type placeSource struct {
	topic     string
	partition int32
	source    string
}

var (
	posPattern    = regexp.MustCompile(`^[0-9A-F]{8}-[0-9A-F]{16}-[0-9A-F]{8}$`)
	sourcePattern = regexp.MustCompile(`^[0-9]+/[a-z0-9_]{1,63}$`)
)

// New starts with nothing seen.
func New(truth *Truth) *Checker {
	return &Checker{
		truth: truth, report: Report{Expected: len(truth.Events)},
		seen: make(map[string]first, len(truth.Events)), next: map[topicKey]int{},
		lastPos: map[placeSource]string{}, sources: map[string]bool{},
	}
}

// Missing is the number of events that were not seen yet.
func (c *Checker) Missing() int { return len(c.truth.Events) - c.report.Distinct }

// Add checks one record of a topic that has so many partitions.
func (c *Checker) Add(r *kgo.Record, partitions int32) {
	c.report.Records++
	id := Header(r, "id")
	place := fmt.Sprintf("%s/%d@%d", r.Topic, r.Partition, r.Offset)
	event, ok := c.truth.Events[id]
	if !ok {
		if c.truth.RolledBack[id] {
			c.report.RolledBack.add("%s: event %s was rolled back", place, id)
		} else {
			c.report.Unknown.add("%s: event %q was never inserted", place, id)
		}
		return
	}
	c.content(r, event, place, partitions)
	source, pos := Header(r, "source"), Header(r, "pos")
	c.sources[source] = true
	if earlier, repeated := c.seen[id]; repeated {
		c.report.Repeats = append(c.report.Repeats, Repeat{
			ID: id, Topic: r.Topic, Partition: r.Partition, Offset: r.Offset, FirstOffset: earlier.offset, Pos: pos, At: r.Timestamp,
		})
		if pos != earlier.pos {
			c.report.Pos.add("%s: event %s was %s at first and is now %s", place, id, earlier.pos, pos)
		}
		return
	}
	c.seen[id] = first{r.Offset, pos}
	c.report.Distinct++
	c.order(event, place)
	c.position(placeSource{r.Topic, r.Partition, source}, pos, place)
}

// content compares what does not depend on other records.
func (c *Checker) content(r *kgo.Record, e *Expected, place string, partitions int32) {
	if r.Topic != e.Topic {
		c.report.Bytes.add("%s: event %s belongs into topic %s", place, e.ID, e.Topic)
	}
	if string(r.Key) != e.Key {
		c.report.Bytes.add("%s: event %s has key %q, not %q", place, e.ID, r.Key, e.Key)
	}
	switch {
	case e.Null != (r.Value == nil):
		c.report.Bytes.add("%s: event %s: value is null: %t, want %t", place, e.ID, r.Value == nil, e.Null)
	case !e.Null && sha256.Sum256(r.Value) != e.Value:
		c.report.Bytes.add("%s: event %s: its value of %d bytes differs from the payload", place, e.ID, len(r.Value))
	}
	if want := PartitionOf([]byte(e.Key), partitions); r.Partition != want {
		c.report.Partition.add("%s: key %q belongs into partition %d of %d", place, e.Key, want, partitions)
	}
	c.headers(r, e, place)
}

// headers compares names, order and values: id, type, source, pos, then those of the row.
func (c *Checker) headers(r *kgo.Record, e *Expected, place string) {
	names := []string{"id", "type", "source", "pos"}
	for i, name := range names {
		if i >= len(r.Headers) || r.Headers[i].Key != name {
			c.report.Headers.add("%s: header %d of event %s is not %q", place, i, e.ID, name)
			return
		}
	}
	if got := string(r.Headers[1].Value); got != e.Type {
		c.report.Headers.add("%s: event %s has type %q, not %q", place, e.ID, got, e.Type)
	}
	if source := r.Headers[2].Value; !sourcePattern.Match(source) {
		c.report.Headers.add("%s: source %q is malformed", place, source)
	}
	if headerDigest(r.Headers[len(names):]) != e.Headers {
		c.report.Headers.add("%s: the row's own headers of event %s differ: %d are there", place, e.ID,
			len(r.Headers)-len(names))
	}
}

// order checks the first record of each event alone: ranks of a key must appear as 0, 1, 2 without
// a gap, so an event is late when one after it was published, and early when one before it was not.
func (c *Checker) order(e *Expected, place string) {
	key := topicKey{e.Topic, e.Key}
	switch want := c.next[key]; {
	case e.Rank < want:
		c.report.Order.add("%s: event %d of key %q was published after event %d", place, e.Rank, e.Key, want-1)
		return // the later ones were counted already
	case e.Rank > want:
		c.report.Order.add("%s: event %d of key %q was published before event %d", place, e.Rank, e.Key, want)
	}
	c.next[key] = e.Rank + 1
}

func (c *Checker) position(at placeSource, pos, place string) {
	if !posPattern.MatchString(pos) {
		c.report.Pos.add("%s: pos %q is malformed", place, pos)
		return
	}
	if last := c.lastPos[at]; pos <= last {
		c.report.Pos.add("%s: pos %s does not grow, the one before is %s", place, pos, last)
	}
	c.lastPos[at] = pos
}

// Header is the value of the first header with that name.
func Header(r *kgo.Record, name string) string {
	for _, h := range r.Headers {
		if h.Key == name {
			return string(bytes.Clone(h.Value))
		}
	}
	return ""
}

// Report closes the books: what was not seen by now is missing.
func (c *Checker) Report() Report {
	report := c.report
	for id, e := range c.truth.Events {
		if _, ok := c.seen[id]; !ok {
			report.Missing.add("event %s: topic %s, key %q, number %d", id, e.Topic, e.Key, e.Rank)
		}
	}
	for source := range c.sources {
		report.Sources = append(report.Sources, source)
	}
	return report
}
