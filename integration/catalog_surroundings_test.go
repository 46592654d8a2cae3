package integration

import (
	"fmt"
	"strings"
	"testing"
	"time"
)

// TestChildTables: rows of tables that inherit from the outbox are rows of the outbox to a SELECT,
// and reach the WAL under another name.
func TestChildTables(t *testing.T) {
	matrix(t, func(t *testing.T, major int, delivery string) {
		env := Setup(t, Needs{Postgres: major})
		relay := running(t, env, "WALPOST_DELIVERY="+delivery)
		runScript(t, env, `CREATE TABLE outbox_2026_12 () INHERITS (outbox);
			CREATE FUNCTION route() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN INSERT INTO outbox_2026_12 VALUES (NEW.*); RETURN NULL; END $$;
			CREATE TRIGGER route BEFORE INSERT ON outbox FOR EACH ROW EXECUTE FUNCTION route()`)
		doubt := walEnd(t, env)
		insert(t, env, "order", "routed", 10)
		halts(t, relay, "outbox_2026_12", "WALPOST_TABLE")
		frozen(t, env, doubt)
		refused(t, env, nil, "public.outbox_2026_12", "NO INHERIT")

		// The way out: the child is an outbox table as well. Its grandchild is one more.
		vars := []string{"WALPOST_DELIVERY=" + delivery, "WALPOST_TABLE=outbox,outbox_2026_12"}
		if code, output := env.Walpost(t, vars, "init"); code != 0 || strings.Contains(output, "NULL") {
			t.Fatalf("init: %d\n%s", code, output)
		}
		relay = env.Run(t, vars...)
		relay.Ready(t, 30*time.Second)
		insert(t, env, "order", "routed", 3)
		if n := len(awaitRecords(t, env, env.Prefix+"order", 4)); n != 4 {
			t.Errorf("%d records, want the one before and 3 of the child table", n)
		}
		quietly(t, relay)
		env.Exec(t, "CREATE TABLE grandchild () INHERITS (outbox_2026_12)")
		halts(t, relay, "grandchild")
	})
}

// TestParentThatIsNone: what tables of ours inherit from, and what has no rows of theirs, does not
// matter.
func TestParentThatIsNone(t *testing.T) {
	t.Parallel()
	env := Setup(t, Needs{})
	env.Exec(t, "CREATE TABLE base (id uuid DEFAULT gen_random_uuid(), aggregatetype text NOT NULL, aggregateid text NOT NULL, type text, payload jsonb, headers jsonb)")
	runScript(t, env, "ALTER TABLE base ALTER id SET NOT NULL; CREATE TABLE outbox () INHERITS (base); CREATE TABLE outbox2 () INHERITS (base); CREATE TABLE other () INHERITS (base)")
	vars := []string{"WALPOST_TABLE=outbox,outbox2"}
	if code, output := env.Walpost(t, vars, "init"); code != 0 {
		t.Fatalf("init: %d\n%s", code, output)
	}
	relay := env.Run(t, vars...)
	relay.Ready(t, 30*time.Second)
	insert(t, env, "order", "k", 1)
	env.Exec(t, "INSERT INTO outbox2 SELECT * FROM outbox")
	if n := len(awaitRecords(t, env, env.Prefix+"order", 2)); n != 2 {
		t.Errorf("%d records, want 2", n)
	}
	quietly(t, relay)
	relay.Stop(t)
}

// TestPartitionOfSomethingElse: with publish_via_partition_root the rows of a partition are sent
// under the name of its root.
func TestPartitionOfSomethingElse(t *testing.T) {
	t.Parallel()
	for _, major := range []int{14, 18} {
		t.Run(fmt.Sprint("postgres ", major), func(t *testing.T) {
			t.Parallel()
			env := Setup(t, Needs{Postgres: major})
			runScript(t, env, `CREATE TABLE everything (id uuid DEFAULT gen_random_uuid() NOT NULL, aggregatetype text NOT NULL, aggregateid text NOT NULL, type text, payload jsonb, headers jsonb)
				PARTITION BY LIST (aggregatetype);
				CREATE TABLE outbox PARTITION OF everything FOR VALUES IN ('order');
				CREATE TABLE rest PARTITION OF everything DEFAULT;
				CREATE PUBLICATION walpost FOR TABLE everything, outbox WITH (publish = 'insert', publish_via_partition_root = true)`)
			env.Exec(t, "SELECT pg_create_logical_replication_slot($1, 'pgoutput')", env.Slot)
			refused(t, env, nil, "is a partition of public.everything")

			env.Exec(t, "ALTER PUBLICATION walpost SET (publish_via_partition_root = false)")
			env.Init(t)
			relay := env.Run(t)
			relay.Ready(t, 30*time.Second)
			insert(t, env, "order", "k", 3)
			env.Exec(t, "INSERT INTO everything (aggregatetype, aggregateid) VALUES ('order', 'through the root'), ('elsewhere', 'k')")
			if n := len(awaitRecords(t, env, env.Prefix+"order", 4)); n != 4 {
				t.Errorf("%d records, want 4", n)
			}
			relay.Stop(t)
		})
	}
}

// TestStrangersInThePublication: rows of a table that only the publication names are skipped.
// Partitions of the outbox are no such tables.
func TestStrangersInThePublication(t *testing.T) {
	t.Parallel()
	onBoth(t, func(t *testing.T, major int) {
		t.Parallel()
		env := Setup(t, Needs{Postgres: major})
		partitioned(t, env, "insert, update, delete")
		relay := running(t, env)
		env.Exec(t, "ALTER PUBLICATION walpost ADD TABLE outbox_new")
		if output := env.Init(t); strings.Contains(output, "warning") {
			t.Errorf("init warns of a partition:\n%s", output)
		}
		runScript(t, env, `CREATE TABLE "Other" (LIKE outbox); ALTER PUBLICATION walpost ADD TABLE "Other"`)
		insert(t, env, "order", "k", 1)
		warned(t, env, relay, "names tables that WALPOST_TABLE does not")
		relay.Stop(t)
	})
}

// TestRulesAndTriggers: an INSERT that succeeds and leaves no row has no event.
func TestRulesAndTriggers(t *testing.T) {
	t.Parallel()
	onBoth(t, func(t *testing.T, major int) {
		t.Parallel()
		env := Setup(t, Needs{Postgres: major})
		relay := running(t, env)
		quietly(t, relay)
		runScript(t, env, `CREATE FUNCTION tidy() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN IF NEW.type = 'Unwanted' THEN RETURN NULL; END IF; RETURN NEW; END $$;
			CREATE TRIGGER tidy BEFORE INSERT ON outbox FOR EACH ROW EXECUTE FUNCTION tidy()`)
		insert(t, env, "order", "k", 1)
		warned(t, env, relay, "seems to return NULL")
		runScript(t, env, `CREATE FUNCTION fine() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN -- never return null here
				IF TG_OP = 'DELETE' THEN RETURN OLD; END IF; NEW.type := 'x'; RETURN NEW; END $$;
			CREATE FUNCTION quiet() RETURNS trigger LANGUAGE plpgsql AS $$ DECLARE r outbox; BEGIN r := NULL; RETURN r; END $$;
			ALTER TABLE outbox DISABLE TRIGGER tidy; CREATE TRIGGER fine BEFORE INSERT OR DELETE ON outbox FOR EACH ROW EXECUTE FUNCTION fine()`)
		if output := env.Init(t); strings.Contains(output, "RETURN NULL") || strings.Contains(output, "return NULL") {
			t.Errorf("init warns of a trigger that returns its row:\n%s", output)
		}
		env.Exec(t, "CREATE TRIGGER quiet BEFORE INSERT ON outbox FOR EACH ROW WHEN (NEW.aggregateid = 'never') EXECUTE FUNCTION quiet()")
		if output := env.Init(t); !strings.Contains(output, `trigger "quiet"`) {
			t.Errorf("init does not warn of a trigger that returns no row:\n%s", output)
		}
		env.Exec(t, "CREATE RULE twice AS ON INSERT TO outbox WHERE NEW.aggregateid = 'x' DO INSTEAD NOTHING")
		insert(t, env, "order", "k", 1)
		warned(t, env, relay, "instead of some INSERTs")
		env.Exec(t, "CREATE RULE aside AS ON INSERT TO outbox DO INSTEAD NOTHING")
		insert(t, env, "order", "k", 1)
		env.Exec(t, "SELECT pg_logical_emit_message(true, 'x', 'x')") // so that there is something to confirm
		halts(t, relay, "leaves no row", "DROP RULE")
		refused(t, env, nil, "leaves no row", `DROP RULE "aside"`)
	})
}

// partitioned makes an outbox whose rows move with their state, and its publication.
func partitioned(t testing.TB, env *Env, publish string) {
	t.Helper()
	runScript(t, env, `CREATE TABLE outbox (id uuid NOT NULL DEFAULT gen_random_uuid(), aggregatetype text NOT NULL, aggregateid text NOT NULL, type text, payload jsonb, headers jsonb,
		relayed boolean NOT NULL DEFAULT false, PRIMARY KEY (id, relayed)) PARTITION BY LIST (relayed);
		CREATE TABLE outbox_new PARTITION OF outbox FOR VALUES IN (false); CREATE TABLE outbox_relayed PARTITION OF outbox DEFAULT;
		CREATE PUBLICATION walpost FOR TABLE outbox WITH (publish_via_partition_root = true, publish = '`+publish+`')`)
}

// TestRowsThatMove: an UPDATE that moves rows to another partition is a DELETE and an INSERT in the
// WAL. If the stream has the first, the second is no event; else there is a trigger that refuses
// the UPDATE.
func TestRowsThatMove(t *testing.T) {
	matrix(t, func(t *testing.T, major int, delivery string) {
		env := Setup(t, Needs{Postgres: major})
		partitioned(t, env, "insert, update, delete")
		relay := running(t, env, "WALPOST_DELIVERY="+delivery)
		insert(t, env, "order", "k", 8)
		awaitRecords(t, env, env.Prefix+"order", 9)
		env.Exec(t, "UPDATE outbox SET relayed = true")
		insert(t, env, "order", "later", 1)
		records := awaitRecords(t, env, env.Prefix+"order", 10)
		ids := map[string]bool{}
		for _, r := range records {
			ids[headerValue(r, "id")] = true
		}
		if len(records) != 10 || len(ids) != 10 {
			t.Errorf("%d records of %d events, want 10", len(records), len(ids))
		}
		quietly(t, relay)
		env.Exec(t, "ALTER PUBLICATION walpost SET (publish = 'insert')")
		halts(t, relay, "was altered")
		env.Init(t, "--accept-gap")
		relay = env.Run(t)
		relay.Ready(t, 30*time.Second)
		warned(t, env, relay, "publishes it again")

		_, trigger, _ := strings.Cut(relay.Log(), "refuse it: ")
		trigger, _, _ = strings.Cut(trigger, `","`)
		runScript(t, env, strings.ReplaceAll(trigger, `\"`, `"`))
		if _, err := env.Connect(t).Exec(t.Context(), "UPDATE outbox SET relayed = false"); err == nil ||
			!strings.Contains(err.Error(), "must not move") {
			t.Errorf("a row moves: %v", err)
		}
		env.Exec(t, "UPDATE outbox SET type = 'x'")
		if output := env.Init(t); strings.Contains(output, "publishes it again") {
			t.Errorf("init still warns:\n%s", output)
		}
		relay.Stop(t)
	})
}

// TestRowsThatMoveBelow: partitions of partitions have keys of their own; triggers may write
// elsewhere between the two halves; and where not each move is known, the warning is there.
func TestRowsThatMoveBelow(t *testing.T) {
	t.Parallel()
	for _, major := range []int{14, 18} {
		t.Run(fmt.Sprint("postgres ", major), func(t *testing.T) {
			t.Parallel()
			env := Setup(t, Needs{Postgres: major})
			runScript(t, env, `CREATE TABLE outbox (id uuid NOT NULL DEFAULT gen_random_uuid(), aggregatetype text NOT NULL, aggregateid text NOT NULL, type text, payload jsonb, headers jsonb,
				relayed boolean NOT NULL DEFAULT false, done boolean NOT NULL DEFAULT false, PRIMARY KEY (id, relayed, done)) PARTITION BY LIST (relayed);
				CREATE TABLE o_new PARTITION OF outbox FOR VALUES IN (false) PARTITION BY LIST (done);
				CREATE TABLE o_new_new PARTITION OF o_new FOR VALUES IN (false); CREATE TABLE o_new_done PARTITION OF o_new DEFAULT;
				CREATE TABLE o_relayed PARTITION OF outbox DEFAULT;
				CREATE TABLE audit (n int GENERATED ALWAYS AS IDENTITY PRIMARY KEY, id uuid);
				CREATE FUNCTION audit() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN INSERT INTO audit (id) VALUES (NEW.id); RETURN NEW; END $$;
				CREATE TRIGGER audit BEFORE INSERT ON outbox FOR EACH ROW EXECUTE FUNCTION audit();
				CREATE PUBLICATION walpost FOR TABLE outbox, audit WITH (publish_via_partition_root = true, publish = 'insert, update, delete')`)
			relay := running(t, env)
			insert(t, env, "order", "k", 4)
			env.Exec(t, "UPDATE outbox SET done = true")
			env.Exec(t, "UPDATE outbox SET relayed = true")
			insert(t, env, "order", "later", 1)
			if n := len(awaitRecords(t, env, env.Prefix+"order", 6)); n != 6 {
				t.Errorf("%d records, want 6", n)
			}
			quietly(t, relay, "for good: public.audit")
			env.Exec(t, "ALTER TABLE o_relayed REPLICA IDENTITY FULL")
			if output := env.Init(t); !strings.Contains(output, "publishes it again") ||
				!strings.Contains(output, `OLD."done"`) || !strings.Contains(output, `OLD."relayed"`) {
				t.Errorf("init says:\n%s", output)
			}
			relay.Stop(t)
		})
	}
}
