package integration

import (
	"fmt"
	"testing"
	"time"
)

// rotation is a partitioned outbox whose partitions come before the rows and go after them.
type rotation struct {
	env    *Env
	tables []string // what was detached, and the archive of what was dropped
}

const partitionRows = 400

func newRotation(t testing.TB, env *Env) *rotation {
	t.Helper()
	env.Exec(t, `CREATE TABLE outbox (n bigserial, id uuid NOT NULL, aggregatetype text NOT NULL, aggregateid text NOT NULL, type text,
		payload jsonb, headers jsonb) PARTITION BY RANGE (n)`)
	env.Exec(t, "CREATE TABLE archive (id uuid, aggregatetype text, aggregateid text, type text, payload jsonb, headers jsonb)")
	return &rotation{env: env, tables: []string{"outbox", "archive"}}
}

// attach adds a partition, every other one with its columns in another order and a gap among them.
func (r *rotation) attach(t testing.TB, i int) {
	t.Helper()
	if i%2 == 0 {
		r.env.Exec(t, fmt.Sprintf("CREATE TABLE part_%d PARTITION OF outbox FOR VALUES FROM (%d) TO (%d)", i,
			i*partitionRows, (i+1)*partitionRows))
		return
	}
	r.env.Exec(t, fmt.Sprintf(`CREATE TABLE part_%d (headers jsonb, gap int, payload jsonb, type text, aggregateid text NOT NULL, aggregatetype text NOT NULL,
		id uuid NOT NULL, n bigint NOT NULL)`, i))
	r.env.Exec(t, fmt.Sprintf("ALTER TABLE part_%d DROP COLUMN gap", i))
	r.env.Exec(t, fmt.Sprintf("ALTER TABLE outbox ATTACH PARTITION part_%d FOR VALUES FROM (%d) TO (%d)", i,
		i*partitionRows, (i+1)*partitionRows))
}

// remove takes a partition away, in one of three ways.
func (r *rotation) remove(t testing.TB, i int) {
	t.Helper()
	part := fmt.Sprintf("part_%d", i)
	switch i % 3 {
	case 0:
		r.env.Exec(t, "ALTER TABLE outbox DETACH PARTITION "+part)
		r.tables = append(r.tables, part)
	case 1:
		r.env.Exec(t, "ALTER TABLE outbox DETACH PARTITION "+part+" CONCURRENTLY")
		r.tables = append(r.tables, part)
	case 2:
		runScript(t, r.env, `BEGIN; LOCK TABLE outbox; INSERT INTO archive SELECT id, aggregatetype, aggregateid, type, payload, headers FROM `+part+
			`; DROP TABLE `+part+`; COMMIT`)
	}
}

// TestPartitionsComeAndGo attaches partitions ahead of the load, and detaches or drops those that
// it has just left.
func TestPartitionsComeAndGo(t *testing.T) {
	matrix(t, func(t *testing.T, major int, delivery string) {
		env := Setup(t, Needs{Postgres: major})
		r := newRotation(t, env)
		const ahead, rounds = 4, 12
		for i := range ahead {
			r.attach(t, i)
		}
		env.Init(t)
		relay := env.Run(t, "WALPOST_DELIVERY="+delivery)
		relay.Ready(t, 30*time.Second)
		// A writer that the relay of partitions overtakes tries again.
		work := env.Workload(t, WorkloadOptions{Rate: 500, Outages: true})
		for i := range rounds {
			r.attach(t, i+ahead)
			Eventually(t, time.Minute, "the load to leave a partition", func() bool {
				var n int
				_, err := fmt.Sscan(env.Value(t, "SELECT last_value FROM outbox_n_seq"), &n)
				return err == nil && n >= (i+1)*partitionRows
			})
			r.remove(t, i)
		}
		work.Stop(t)
		everything(t, env, r.tables...)
		if n := reconnects(t, relay); n != 0 {
			t.Errorf("%d reconnects", n)
		}
		whole(t, env, work, relay)
		t.Logf("%d partitions came, %d went", ahead+rounds, rounds)
	})
}

// TestSeveralTables publishes three tables with the same columns of the contract in other orders
// and types, and others beside them.
func TestSeveralTables(t *testing.T) {
	matrix(t, func(t *testing.T, major int, delivery string) {
		env := Setup(t, Needs{Postgres: major})
		env.Exec(t, "CREATE SCHEMA shop")
		env.Exec(t, `CREATE TABLE shop.events (payload text, extra int[] DEFAULT '{1,2}', headers json, aggregateid varchar(80) NOT NULL, seq bigserial,
			aggregatetype varchar NOT NULL, id uuid PRIMARY KEY, type varchar(60))`)
		env.Exec(t, `CREATE TABLE public.log (id bigserial, payload bytea, aggregateid bigint NOT NULL, aggregatetype text NOT NULL, type varchar(8), headers jsonb)`)
		env.Table = "public.outbox,shop.events,public.log"
		env.Init(t)
		relay := env.Run(t, "WALPOST_DELIVERY="+delivery)
		relay.Ready(t, 30*time.Second)
		first, second := *env, *env
		first.Table, second.Table = "public.outbox", "shop.events"
		work := first.Workload(t, WorkloadOptions{Rate: 400, Writers: 2})
		other := second.Workload(t, WorkloadOptions{Rate: 400, Writers: 2, Types: []string{"ship", "bill"}})
		for i := range 40 { // all tables in one transaction
			runScript(t, env, fmt.Sprintf(`BEGIN;
				INSERT INTO log (aggregatetype, aggregateid, type, payload, headers)
					SELECT 'log', i, %d, convert_to('grün ' || i, 'UTF8'), '{"seq": "%d"}' FROM generate_series(1, 10) i;
				INSERT INTO outbox (id, aggregatetype, aggregateid, type, payload, headers) SELECT gen_random_uuid(), 'all', 'k', 'a', '1', '{"seq": "%d"}';
				INSERT INTO shop.events (id, aggregatetype, aggregateid, type, payload, headers) SELECT gen_random_uuid(), 'all', 'k', 'b', '2', '{"seq": "%d"}';
				COMMIT`, i, i, 2*i, 2*i+1))
		}
		work.WaitCommitted(t, 1000)
		work.Stop(t)
		other.WaitCommitted(t, 1000)
		other.Stop(t)
		everything(t, &first, "outbox", "shop.events",
			"(SELECT id, aggregatetype, aggregateid, type, convert_from(payload, 'UTF8') AS payload, headers FROM log) log")
		whole(t, &first, work, relay)
	})
}
