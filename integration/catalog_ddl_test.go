package integration

import (
	"strings"
	"testing"
	"time"
)

// TestRowsOfAnEarlierType: rows were inserted when a column had a type whose binary form is not
// read, and now it has another. They can be read in text form.
func TestRowsOfAnEarlierType(t *testing.T) {
	t.Parallel()
	env := Setup(t, Needs{})
	env.Exec(t, "CREATE TYPE kind AS ENUM ('Happened', 'Other')")
	env.Exec(t, "CREATE TABLE outbox (id uuid PRIMARY KEY, aggregatetype text NOT NULL, aggregateid text NOT NULL, type kind, payload bytea, headers jsonb)")
	env.Init(t)
	relay := env.Run(t)
	relay.Ready(t, 30*time.Second)
	one := `INSERT INTO outbox (id, aggregatetype, aggregateid, type, payload) VALUES (gen_random_uuid(), 'order', 'k', 'Happened', '\x01ff')`
	env.Exec(t, one)
	awaitRecords(t, env, env.Prefix+"order", 1)
	relay.Stop(t)
	env.Exec(t, one)
	env.Exec(t, "ALTER TABLE outbox ALTER COLUMN type TYPE text USING type::text")
	env.Exec(t, one)
	relay = env.Run(t)
	relay.WaitLog(t, 30*time.Second, "begins again in text form")
	records := awaitRecords(t, env, env.Prefix+"order", 3)
	for _, r := range records {
		if string(r.Value) != "\x01\xff" || headerValue(r, "type") != "Happened" {
			t.Errorf("value %q, type %q", r.Value, headerValue(r, "type"))
		}
	}
	relay.Ready(t, 10*time.Second)
	relay.Stop(t)
	if len(awaitRecords(t, env, env.Prefix+"order", 3)) != 3 {
		t.Error("a row was repeated")
	}
}

// tableChanges do not concern the relay.
var tableChanges = []string{
	"ALTER TABLE outbox ADD COLUMN tenant text",
	"ALTER TABLE outbox ALTER COLUMN tenant SET DEFAULT 'x'",
	"ALTER TABLE outbox ADD COLUMN shard int DEFAULT (random() * 10)::int", // writes the table anew
	"ALTER TABLE outbox RENAME COLUMN tenant TO renter",
	"CREATE INDEX CONCURRENTLY outbox_renter ON outbox (renter, created_at)",
	"ALTER TABLE outbox DROP COLUMN shard",
	"ALTER TABLE outbox ALTER COLUMN type TYPE varchar(200)",
	"ALTER TABLE outbox ALTER COLUMN aggregatetype TYPE varchar(100)",
	"ALTER TABLE outbox ALTER COLUMN aggregateid TYPE varchar",
	"ALTER TABLE outbox REPLICA IDENTITY FULL",
	"VACUUM FULL outbox",
	"CLUSTER outbox USING outbox_pkey",
	"ALTER TABLE outbox REPLICA IDENTITY NOTHING",
	"REINDEX TABLE CONCURRENTLY outbox",
	"ALTER TABLE outbox ALTER COLUMN created_at SET DEFAULT now()",
	"ALTER TABLE outbox SET (fillfactor = 50, autovacuum_enabled = off)",
	"ALTER TABLE outbox DROP CONSTRAINT outbox_pkey, ALTER COLUMN id DROP NOT NULL",
	"BEGIN; LOCK TABLE outbox; INSERT INTO archive (id, aggregatetype, aggregateid, type, payload, headers) " +
		"SELECT id, aggregatetype, aggregateid, type, payload, headers FROM outbox; TRUNCATE outbox; COMMIT",
	"ALTER TABLE outbox ADD COLUMN serial bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY",
	"CREATE SCHEMA IF NOT EXISTS elsewhere; ALTER TABLE neighbour SET SCHEMA elsewhere; ALTER TABLE elsewhere.neighbour SET SCHEMA public",
	"CREATE PUBLICATION other FOR TABLE neighbour; DROP PUBLICATION other",
	"ALTER TABLE outbox DISABLE TRIGGER ALL; ANALYZE outbox; COMMENT ON TABLE outbox IS 'x'; GRANT SELECT ON outbox TO PUBLIC",
	"ALTER TABLE outbox ADD CONSTRAINT late CHECK (aggregateid <> 'never') NOT VALID; ALTER TABLE outbox VALIDATE CONSTRAINT late",
	"ALTER TABLE outbox REPLICA IDENTITY DEFAULT, DROP COLUMN renter, DROP COLUMN serial",
	"ALTER TABLE outbox ALTER COLUMN payload TYPE json USING payload::json, ALTER COLUMN aggregateid TYPE text",
}

// TestTableChangesUnderLoad does to the outbox and around it what does not concern the relay, again
// and again under load.
func TestTableChangesUnderLoad(t *testing.T) {
	matrix(t, func(t *testing.T, major int, delivery string) {
		env := Setup(t, Needs{Postgres: major})
		env.Init(t)
		env.Exec(t, "CREATE TABLE archive (id uuid, aggregatetype text, aggregateid text, type text, payload jsonb, headers jsonb)")
		env.Exec(t, "CREATE TABLE neighbour (n int)")
		relay := env.Run(t, "WALPOST_DELIVERY="+delivery)
		// A change of a type ends statements that were prepared.
		work := env.Workload(t, WorkloadOptions{Rate: 500, Outages: true})
		relay.Ready(t, 30*time.Second)
		conn := env.Connect(t)
		for _, change := range tableChanges {
			if _, err := conn.PgConn().Exec(t.Context(), change).ReadAll(); err != nil {
				t.Fatalf("%s: %v", change, err)
			}
			work.WaitCommitted(t, work.Committed()+40)
			if !relay.Running() {
				t.Fatalf("the relay ended after %s", change)
			}
		}
		work.Stop(t)
		everything(t, env, "outbox", "archive")
		if n := reconnects(t, relay); n != 0 {
			t.Errorf("%d reconnects", n)
		}
		whole(t, env, work, relay)
		t.Logf("%d changes of the table", len(tableChanges))
	})
}

// TestOutboxRenamedAndBack gives the outbox another name, or another schema, for as long as one row
// takes, between two inspections: the row is not in the stream under the name of the outbox, and
// the relay says so instead of skipping it.
func TestOutboxRenamedAndBack(t *testing.T) {
	matrix(t, func(t *testing.T, major int, delivery string) {
		for what, change := range map[string][2]string{
			"name": {"ALTER TABLE outbox RENAME TO aside", "ALTER TABLE aside RENAME TO outbox"},
			"schema": {
				"CREATE SCHEMA s; ALTER TABLE outbox SET SCHEMA s; ALTER TABLE s.outbox RENAME TO aside; SET search_path = s",
				"ALTER TABLE aside RENAME TO outbox; ALTER TABLE s.outbox SET SCHEMA public",
			},
		} {
			t.Run(what, func(t *testing.T) { renamedAndBack(t, major, "WALPOST_DELIVERY="+delivery, change) })
		}
	})
}

func renamedAndBack(t *testing.T, major int, delivery string, change [2]string) {
	env := Setup(t, Needs{Postgres: major})
	relay := running(t, env, delivery)
	runScript(t, env, change[0]+"; INSERT INTO aside (id, aggregatetype, aggregateid, payload) VALUES (gen_random_uuid(), 'order', 'aside', '1'); "+change[1])
	insert(t, env, "order", "k", 3)
	halts(t, relay, "aside", "had this name", "pg_replication_slot_advance")
	halts(t, env.Run(t, delivery), "had this name") // and again, until somebody acts

	_, rest, _ := strings.Cut(relay.Log(), "SELECT pg_replication_slot_advance(")
	call, _, _ := strings.Cut(rest, ";")
	env.Exec(t, "SELECT pg_replication_slot_advance("+call)
	env.Init(t, "--accept-gap")
	env.Exec(t, "WITH gone AS (DELETE FROM outbox WHERE aggregateid = 'aside' RETURNING *) INSERT INTO outbox SELECT * FROM gone")
	relay = env.Run(t, delivery)
	relay.Ready(t, 30*time.Second)
	if n := len(awaitRecords(t, env, env.Prefix+"order", 5)); n != 5 {
		t.Errorf("%d records, want the one before, three behind, and the one of the time between", n)
	}
	relay.Stop(t)
}
