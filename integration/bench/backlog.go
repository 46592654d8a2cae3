package main

import (
	"fmt"

	"github.com/walpost/walpost/integration"
)

// backlog is a load that is there before anybody reads it.
type backlog struct {
	rows       int
	bytes      int // of a row, about
	perTxn     int
	partitions int32
	topics     int
	keys       int
	busy       int // other tables, which together get ten times the bytes
}

// theBacklog is the one that all others differ from in one way.
var theBacklog = backlog{rows: 500_000, bytes: 500, perTxn: 10, partitions: 6, topics: 1, keys: 1000}

// fill writes the backlog. The slots that must have it are there already.
func (b backlog) fill(h *host, env *integration.Env) {
	for i := range b.busy {
		env.Exec(h, fmt.Sprintf("CREATE TABLE busy%d (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, filler text)", i))
	}
	// Bytes stay what they are: a repeated letter would be compressed to nothing.
	env.Exec(h, fmt.Sprintf("ALTER TABLE %s ALTER payload SET STORAGE EXTERNAL", env.Table))
	other := ""
	for i := range b.busy {
		other += fmt.Sprintf("INSERT INTO busy%d (filler) SELECT repeat('x', %d) FROM generate_series(1, %d);\n", i, b.bytes, 10*b.perTxn/b.busy)
	}
	env.Exec(h, fmt.Sprintf(`DO $$ DECLARE filler text := repeat('x', %d); BEGIN FOR t IN 0..%d LOOP
		INSERT INTO %s (id, aggregatetype, aggregateid, type, payload)
			SELECT gen_random_uuid(), 'order' || ((t * %d + i) %% %d)::text, ((t * %d::bigint + i) %% %d)::text, 'Placed', jsonb_build_object('t', t, 'x', filler)
			FROM generate_series(0, %d) i;
		%s COMMIT; END LOOP; END $$`,
		max(b.bytes-100, 1), b.rows/b.perTxn-1, env.Table, b.perTxn, b.topics, b.perTxn, b.keys, b.perTxn-1, other))
	env.Exec(h, "CHECKPOINT")
}

// createTopics makes the topics of events whose names begin with a prefix.
func (b backlog) createTopics(h *host, env *integration.Env, prefix string) {
	names := make([]string, b.topics)
	for i := range names {
		names[i] = fmt.Sprintf("%sorder%d", prefix, i)
	}
	env.CreateTopics(h, names, b.partitions)
}
