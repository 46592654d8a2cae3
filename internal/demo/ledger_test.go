package demo

import (
	"testing"
	"time"
)

func TestLedger(t *testing.T) {
	t.Parallel()
	began := time.Now()
	a1, a2, b1 := event{id: "a1", aggregate: "order", key: "a"}, event{id: "a2", aggregate: "order", key: "a"}, event{id: "b1", aggregate: "order", key: "b"}
	type record struct{ id, pos string }
	for name, c := range map[string]struct {
		records []record
		want    totals
	}{
		"all in order":     {[]record{{"a1", "1"}, {"a2", "2"}, {"b1", "3"}}, totals{received: 3}},
		"one missing":      {[]record{{"a1", "1"}, {"b1", "3"}}, totals{received: 2, missing: 1}},
		"a repeat":         {[]record{{"a1", "1"}, {"a2", "2"}, {"a1", "1"}, {"b1", "3"}}, totals{received: 3, repeats: 1}},
		"an invention":     {[]record{{"a1", "1"}, {"a2", "2"}, {"b1", "3"}, {"x", "4"}}, totals{received: 3, invented: 1}},
		"key out of order": {[]record{{"a2", "1"}, {"b1", "2"}, {"a1", "3"}}, totals{received: 3, outOfOrder: 2}},
		"pos runs back":    {[]record{{"a1", "1"}, {"b1", "3"}, {"a2", "2"}}, totals{received: 3, outOfOrder: 1}},
	} {
		l := newLedger()
		l.rollBack([]event{{id: "x"}})
		l.commit([]event{a1, a2}, began)
		l.commit([]event{b1}, began)
		for _, r := range c.records {
			l.arrive(r.id, "demo.order", 0, r.pos, began.Add(3*time.Millisecond))
		}
		got := l.total()
		c.want.committed, c.want.transactions, c.want.rolledBack, c.want.rolledBackTransactions = 3, 2, 1, 1
		c.want.p50, c.want.p99 = 3*time.Millisecond, 3*time.Millisecond
		if got != c.want {
			t.Errorf("%s: got %+v, want %+v", name, got, c.want)
		}
		if got.good() != (name == "all in order") {
			t.Errorf("%s: good is %t", name, got.good())
		}
		if l.missing() != c.want.missing || l.committed() != 3 {
			t.Errorf("%s: missing %d, committed %d", name, l.missing(), l.committed())
		}
	}
}

func TestLedgerLatency(t *testing.T) {
	t.Parallel()
	l, began := newLedger(), time.Now()
	for i := range 100 {
		e := newEvent("order", "k", "x", nil)
		l.commit([]event{e}, began)
		took, known := l.arrive(e.id, "demo.order", 0, string(rune('A'+i)), began.Add(time.Duration(i+1)*time.Millisecond))
		if !known || took != time.Duration(i+1)*time.Millisecond {
			t.Fatalf("took %s, known %t", took, known)
		}
	}
	if got := l.total(); got.p50 != 50*time.Millisecond || got.p99 != 99*time.Millisecond {
		t.Errorf("p50 %s, p99 %s", got.p50, got.p99)
	}
}
