package checker

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"
)

// Report is the outcome of a check.
type Report struct {
	Expected int      // committed events
	Records  int      // records in the topics
	Distinct int      // expected events among them
	Sources  []string // values of the header "source"

	Missing    Findings // committed, but not there
	RolledBack Findings // there, but rolled back
	Unknown    Findings // there, but never inserted
	Order      Findings // first records of a key out of commit order
	Bytes      Findings // topic, key or value differ
	Headers    Findings // names, order or values of headers differ
	Partition  Findings // not where a Java producer would put the key
	Pos        Findings // malformed, not growing, or not the same in a repeat

	Repeats []Repeat // records of an event after its first one; at least once allows them
}

// Repeat is a record of an event that was published before.
type Repeat struct {
	ID                  string
	Topic               string
	Partition           int32
	Offset, FirstOffset int64
	Pos                 string
	At                  time.Time // timestamp of the repeated record
}

// Findings count everything and describe the first few.
type Findings struct {
	Count int
	First []string
}

const describedFindings = 10

func (f *Findings) add(format string, args ...any) {
	f.Count++
	if f.Count <= describedFindings {
		f.First = append(slices.Clip(f.First), fmt.Sprintf(format, args...))
	}
}

// Err is nil if nothing was lost, invented, reordered or changed. Repeats are no fault here.
func (r Report) Err() error {
	var errs []error
	for _, part := range r.parts() {
		if part.findings.Count > 0 {
			errs = append(errs, fmt.Errorf("%d %s", part.findings.Count, part.name))
		}
	}
	return errors.Join(errs...)
}

// Assert fails the test unless nothing was lost, invented, reordered or changed, and at most so
// many records are repeats.
func (r Report) Assert(t testing.TB, maxRepeats int) {
	t.Helper()
	t.Log(r)
	if r.Err() != nil {
		t.Error("the topics differ from what was committed")
	}
	if len(r.Repeats) > maxRepeats {
		t.Errorf("%d repeats, at most %d are allowed", len(r.Repeats), maxRepeats)
	}
}

type reportPart struct {
	name     string
	findings Findings
}

func (r Report) parts() []reportPart {
	return []reportPart{
		{"missing", r.Missing},
		{"rolled back but published", r.RolledBack},
		{"unknown", r.Unknown},
		{"out of order", r.Order},
		{"with wrong bytes", r.Bytes},
		{"with wrong headers", r.Headers},
		{"in the wrong partition", r.Partition},
		{"with a wrong pos", r.Pos},
	}
}

// String is one line when all is well, and otherwise the first findings of each kind too.
func (r Report) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%d committed, %d records, %d distinct, %d repeats", r.Expected, r.Records, r.Distinct,
		len(r.Repeats))
	for _, part := range r.parts() {
		if part.findings.Count == 0 {
			continue
		}
		fmt.Fprintf(&b, "\n%d %s:", part.findings.Count, part.name)
		for _, line := range part.findings.First {
			fmt.Fprintf(&b, "\n  %s", line)
		}
	}
	for i, repeat := range r.Repeats {
		if i == describedFindings {
			fmt.Fprintf(&b, "\n  and %d more", len(r.Repeats)-i)
			break
		}
		fmt.Fprintf(&b, "\n  repeat: %s/%d@%d of @%d, pos %s", repeat.Topic, repeat.Partition, repeat.Offset,
			repeat.FirstOffset, repeat.Pos)
	}
	return b.String()
}
