package main

import (
	"fmt"
	"strings"
	"time"

	"github.com/walpost/walpost/integration"
)

// oneWay is the delay of a line to servers that are far away, in each direction.
const oneWay = 2500 * time.Microsecond

// farPostgres puts Postgres at the end of such a line.
func farPostgres(h *host, env *integration.Env) []string {
	line, variable := env.PostgresProxy(h)
	line.Shape(oneWay, 0)
	return []string{variable}
}

// measureHalves compares one relay for a table with two, each with a slot of its own for one of two
// hash partitions.
func measureHalves(h *host, opts options, out *report) {
	load := theBacklog
	load.rows /= opts.Scale
	env := serversFor(h, opts, opts.Postgres, nil, 0)
	env.Init(h)
	env.Exec(h, "DROP TABLE "+env.Table)
	env.Exec(h, "CREATE TABLE "+env.Table+` (id uuid NOT NULL, aggregatetype text NOT NULL, aggregateid text NOT NULL, type text, payload jsonb)
		PARTITION BY HASH (aggregateid)`)
	for i := range 2 {
		env.Exec(h, fmt.Sprintf("CREATE TABLE half%d PARTITION OF %s FOR VALUES WITH (MODULUS 2, REMAINDER %d)",
			i, env.Table, i))
		env.Exec(h, fmt.Sprintf("CREATE PUBLICATION half%d FOR TABLE half%d WITH (publish = 'insert')", i, i))
	}
	env.Exec(h, "ALTER PUBLICATION "+env.Publication+" ADD TABLE "+env.Table)
	env.Exec(h, "ALTER PUBLICATION "+env.Publication+" SET (publish_via_partition_root = true)")
	load.fill(h, env)
	warm(h, opts, env)
	var one, two []drained
	busy := 0.0
	for round := range opts.Rounds {
		for _, relays := range []int{1, 2} {
			busy = max(busy, quiet())
			prefix := fmt.Sprintf("halves%d_%d.", round, relays)
			load.createTopics(h, env, prefix)
			turn := halves(h, env, load, relays, prefix)
			if relays == 1 {
				one = append(one, turn)
			} else {
				two = append(two, turn)
			}
			env.DeleteTopics(h, prefix)
		}
	}
	all := [][]drained{one, two}
	out.drain(h.name, "one relay", one, all, busy)
	out.drain(h.name, "two relays", two, all, busy)
}

// halves drains the table with one relay, or each half with one.
func halves(h *host, env *integration.Env, load backlog, relays int, prefix string) drained {
	parts := make([]part, relays)
	for i := range parts {
		// A slot of its own for each turn: the position of one that had the name before would be
		// gone on from.
		parts[i] = part{
			slot: fmt.Sprintf("%s_%d", strings.TrimSuffix(prefix, "."), i), table: env.Table,
			publication: env.Publication, rows: load.rows,
		}
		if relays > 1 {
			parts[i].table, parts[i].publication = fmt.Sprintf("public.half%d", i), fmt.Sprintf("half%d", i)
			_, _ = fmt.Sscan(env.Value(h, fmt.Sprintf("SELECT count(*) FROM half%d", i)), &parts[i].rows)
		}
		env.Exec(h, "SELECT pg_copy_logical_replication_slot($1, $2)", env.Slot, parts[i].slot)
		defer dropSlot(h, env, parts[i].slot)
	}
	return load.relayedInParts(h, env, parts, prefix, nil)
}
