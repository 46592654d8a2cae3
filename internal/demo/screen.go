package demo

import (
	"fmt"
	"io"
	"strings"
	"sync"
	"time"
)

// screen writes whole lines, from several goroutines. Whoever reads may leave at any time, as
// `head` does: the first error ends the demo in order.
type screen struct {
	mu     sync.Mutex
	w      io.Writer
	colors bool
	broken error
	stop   func(error)
}

func newScreen(w io.Writer, colors bool, stop func(error)) *screen {
	return &screen{w: w, colors: colors, stop: stop}
}

func (s *screen) err() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.broken
}

func (s *screen) line(format string, args ...any) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.broken != nil {
		return
	}
	if _, err := fmt.Fprintf(s.w, format+"\n", args...); err != nil {
		s.broken = fmt.Errorf("print: %w", err)
		s.stop(s.broken)
	}
}

// indented sets the lines of a report below a heading.
type indented struct{ screen *screen }

func (i indented) Write(p []byte) (int, error) {
	i.screen.line("  %s", strings.ReplaceAll(strings.TrimRight(string(p), "\n"), "\n", "\n  "))
	return len(p), i.screen.err()
}

// The colours, as terminals number them.
const (
	bold   = "1"
	dim    = "2"
	red    = "31"
	green  = "32"
	yellow = "33"
	blue   = "34"
	purple = "35"
)

func (s *screen) paint(color, text string) string {
	if !s.colors {
		return text
	}
	return "\x1b[" + color + "m" + text + "\x1b[0m"
}

func (s *screen) opening() {
	const title = "walpost demo: the transactional outbox, from a COMMIT in Postgres to a record in Kafka"
	s.line("%s", s.paint(bold, title))
	s.line(`
  1. An order service changes its orders and inserts events into an outbox table, in the same transaction.
  2. walpost reads the outbox from the WAL of Postgres and publishes what was committed, in order per key.
  3. A consumer prints each record as it arrives. What was rolled back never does.

  Ctrl-C stops everything and leaves nothing behind.
`)
}

// columns are time, topic, partition, key, type, pos, milliseconds. Text is padded before it is
// painted.
const columns = "%-12s  %-13s  %4s  %-13s  %-18s  %-34s  %8s"

const clock = "15:04:05.000"

func (s *screen) header() {
	s.line("\n%s", s.paint(bold, fmt.Sprintf(columns, "time", "topic", "part", "key", "type", "pos", "ms")))
}

type arrival struct {
	at        time.Time
	topic     string
	partition int32
	key       string
	kind      string
	pos       string
	took      time.Duration // from sending COMMIT
	known     bool          // committed, and for the first time here
}

func (s *screen) record(a arrival) {
	took := fmt.Sprintf("%8s", milliseconds(a.took))
	if !a.known {
		took = s.paint(red, "       ? was not committed, or arrived before")
	}
	color := blue
	switch a.topic {
	case "demo.customer":
		color = purple
	case "demo.payment":
		color = green
	}
	s.line("%-12s  %s  %4d  %-13s  %s  %s  %s",
		a.at.Format(clock), s.paint(color, fmt.Sprintf("%-13s", a.topic)), a.partition, a.key,
		s.paint(color, fmt.Sprintf("%-18s", a.kind)), s.paint(dim, fmt.Sprintf("%-34s", a.pos)), took)
}

func (s *screen) rolledBack(at time.Time, events []event, excuse string) {
	kinds := make([]string, len(events))
	for i, e := range events {
		kinds[i] = e.key + " " + e.kind
	}
	text := fmt.Sprintf("rolled back: nothing will arrive (%s: %s)", excuse, strings.Join(kinds, ", "))
	s.line("%-12s  %s", at.Format(clock), s.paint(yellow, text))
}

func milliseconds(d time.Duration) string { return fmt.Sprintf("%.1f", float64(d.Microseconds())/1000) }

// plural is a number of things, in the singular for one.
func plural(n int, thing string) string {
	if n == 1 {
		return "1 " + thing
	}
	return fmt.Sprintf("%d %ss", n, thing)
}

func (s *screen) summary(t totals) {
	good := func(n int, text string) string {
		if n == 0 {
			return s.paint(green, text)
		}
		return s.paint(red, text)
	}
	s.line("\n%s", s.paint(bold, "Summary"))
	s.line("  committed     %s in %s", plural(t.committed, "event"), plural(t.transactions, "transaction"))
	s.line("  rolled back   %s in %s; %s",
		plural(t.rolledBack, "event"), plural(t.rolledBackTransactions, "transaction"),
		good(t.invented, fmt.Sprintf("arrived without a commit: %d", t.invented)))
	s.line("  received      %s", plural(t.received, "event"))
	s.line("  missing       %s", good(t.missing, fmt.Sprint(t.missing)))
	s.line("  repeats       %s", good(t.repeats, fmt.Sprint(t.repeats)))
	s.line("  out of order  %s", good(t.outOfOrder, fmt.Sprint(t.outOfOrder)))
	if t.received > 0 {
		s.line("  latency       p50 %s ms, p99 %s ms, from sending COMMIT to the consumer",
			milliseconds(t.p50), milliseconds(t.p99))
	}
}

func (s *screen) nextSteps() {
	s.line(`
%s
  walpost init --print    the SQL that your own database needs
  walpost run --help      every setting, as a flag, a variable and a key of a file
  walpost demo --postgres-url postgres://localhost/test --kafka-brokers localhost:9092
                          the same on your own servers`, s.paint(bold, "Next steps"))
}
