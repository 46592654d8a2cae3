package main

import (
	"fmt"
)

// measured is one case: what is measured, under a name.
type measured struct {
	name    string
	measure func(h *host, opts options, out *report)
}

var deliveries = []string{"at-least-once", "exactly-once"}

// cases are those of the aims, and with --growth all that differ from the first in one way.
func cases(opts options) []measured {
	all := []measured{
		{"drain", drainCase{load: theBacklog, ceilings: true, delivery: deliveries}.measure},
		{"latency at 1,000/s", measureLatency},
	}
	for _, delivery := range deliveries {
		all = append(all, measured{"start, lone events, idle, " + delivery, measureCalm(delivery)})
	}
	if opts.Growth {
		all = append(all, growth()...)
	}
	return all
}

// growth has one dimension of the work grow at a time.
func growth() []measured {
	var all []measured
	add := func(name string, c drainCase, change func(*backlog)) {
		c.load = theBacklog
		change(&c.load)
		if c.delivery == nil {
			c.delivery = deliveries[:1]
		}
		all = append(all, measured{name, c.measure})
	}
	for _, rows := range []int{10_000, 100_000, 2_000_000} {
		add(fmt.Sprintf("backlog of %d rows", rows), drainCase{}, func(b *backlog) { b.rows = rows })
	}
	for _, size := range []struct{ bytes, rows int }{
		{100, 1_000_000},
		{5_000, 200_000},
		{50_000, 20_000},
		{1_000_000, 1_000},
	} {
		add(fmt.Sprintf("rows of %d bytes", size.bytes), drainCase{},
			func(b *backlog) { b.bytes, b.rows = size.bytes, size.rows })
	}
	for _, perTxn := range []int{1, 1_000, 1_000_000} {
		add(fmt.Sprintf("transactions of %d rows", perTxn), drainCase{delivery: deliveries},
			func(b *backlog) { b.perTxn, b.rows = perTxn, max(b.rows, perTxn) })
	}
	for _, tables := range []int{1, 3} {
		add(fmt.Sprintf("%d busy tables, ten times the WAL", tables), drainCase{},
			func(b *backlog) { b.busy, b.rows = tables, 100_000 })
	}
	for _, partitions := range []int32{1, 48} {
		add(fmt.Sprintf("%d partitions", partitions), drainCase{delivery: deliveries},
			func(b *backlog) { b.partitions = partitions })
	}
	add("1000 topics", drainCase{delivery: deliveries, producer: true},
		func(b *backlog) { b.topics, b.partitions = 1000, 1 })
	add("a million keys", drainCase{}, func(b *backlog) { b.keys, b.rows = 1_000_000, 1_000_000 })
	add("TLS on both sides", drainCase{kafka: tlsBrokers(), prepare: encrypt}, func(*backlog) {})
	add("a line of 5 ms to both", drainCase{prepare: farPostgres, delay: oneWay}, func(*backlog) {})
	for _, major := range []int{15, 18} {
		add(fmt.Sprintf("postgres %d", major), drainCase{postgres: major}, func(*backlog) {})
	}
	for _, procs := range []int{1, 2} {
		add(fmt.Sprintf("GOMAXPROCS %d", procs), drainCase{vars: []string{fmt.Sprintf("GOMAXPROCS=%d", procs)}},
			func(*backlog) {})
	}
	all = append(all, measured{"two relays on halves of a table", measureHalves})
	return all
}
