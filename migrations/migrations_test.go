package migrations

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5/pgconn"
	"golang.org/x/sync/errgroup"
)

const publicationState = `SELECT format('%s insert=%s update=%s delete=%s truncate=%s root=%s', string_agg(t.schemaname || '.' || t.tablename, ',' ORDER BY t.tablename COLLATE "C"),
	pubinsert, pubupdate, pubdelete, pubtruncate, pubviaroot)
	FROM pg_publication p JOIN pg_publication_tables t USING (pubname) WHERE pubname = $1
	GROUP BY pubinsert, pubupdate, pubdelete, pubtruncate, pubviaroot`

func TestApplyTwice(t *testing.T) {
	eachMajor(t, func(t *testing.T, db *database) {
		o := outbox()
		o.Tables = append(o.Tables, Table{"public", `Other "box"`})
		planned, err := Check(t.Context(), db.Conn, o)
		if err != nil {
			t.Fatal(err)
		}
		if got := db.query("SELECT count(*)::text FROM pg_publication"); got != "0" {
			t.Fatal("Check created something")
		}
		report, err := db.apply(o)
		if err != nil {
			t.Fatal(err)
		}
		made := []string{
			"table public.outbox: created", `table public.Other "box": created`,
			`publication walpost: created, publishes insert of public.outbox, public.Other "box"`,
		}
		wantLines(t, planned, made...)
		wantLines(t, report, made...)
		want := `public.Other "box",public.outbox insert=t update=f delete=f truncate=f root=t`
		if got := db.query(publicationState, "walpost"); got != want {
			t.Errorf("got %s, want %s", got, want)
		}
		report, err = db.apply(o)
		if err != nil {
			t.Fatal(err)
		}
		wantLines(t, report, "table public.outbox: found, its columns fit", `table public.Other "box": found, its columns fit`,
			`publication walpost: found, publishes insert of public.outbox, public.Other "box"`)
	})
}

func TestApplyAtTheSameTime(t *testing.T) {
	eachMajor(t, func(t *testing.T, db *database) {
		var group errgroup.Group
		for range 4 {
			conn := db.connect(db.Config().ConnString())
			group.Go(func() error {
				_, err := Apply(t.Context(), conn, outbox())
				return err
			})
		}
		if err := group.Wait(); err != nil {
			t.Error(err)
		}
	})
}

func TestScript(t *testing.T) {
	eachMajor(t, func(t *testing.T, db *database) {
		o := outbox()
		o.Tables = append(o.Tables, Table{"public", `it's $walpost$ "odd" \ one`})
		o.Columns = map[string]string{"aggregatetype": "Aggregate Type", "created_at": "at"}
		o.Publication = `my 'pub' \ "x"`
		o.Slot, o.Failover = db.name, db.major >= 17
		script, err := SQL(o)
		if err != nil {
			t.Fatal(err)
		}
		db.exec(script)
		db.exec(script)
		want := `public.it's $walpost$ "odd" \ one,public.outbox insert=t update=f delete=f truncate=f root=t`
		if got := db.query(publicationState, o.Publication); got != want {
			t.Errorf("got %s, want %s", got, want)
		}
		if got := db.query("SELECT plugin || ' ' || database FROM pg_replication_slots WHERE slot_name = $1", o.Slot); got != "pgoutput "+db.name {
			t.Errorf("slot is %s", got)
		}
		if o.Failover && db.query("SELECT failover::text FROM pg_replication_slots WHERE slot_name = $1", o.Slot) != "true" {
			t.Error("the slot is not a failover slot")
		}
		report, err := db.apply(o)
		if err != nil {
			t.Fatal(err)
		}
		for _, finding := range report.Findings {
			if finding.Level != Found {
				t.Errorf("after the script: %s", finding)
			}
		}
		db.exec(fmt.Sprintf("SELECT pg_drop_replication_slot('%s')", o.Slot))
		// A publication that somebody made for another table gets the missing ones.
		db.exec(`CREATE TABLE x (); DROP PUBLICATION "my 'pub' \ ""x"""; CREATE PUBLICATION "my 'pub' \ ""x""" FOR TABLE x; ` + script)
		if got := db.query(publicationState, o.Publication); !strings.Contains(got, "public.outbox") || !strings.Contains(got, "odd") {
			t.Errorf("tables were not added: %s", got)
		}
		db.exec(fmt.Sprintf("SELECT pg_drop_replication_slot('%s')", o.Slot))
	})
}

// psql goes on after an error unless it is told otherwise.
func TestScriptMakesNoSlotWithoutPublication(t *testing.T) {
	eachMajor(t, func(t *testing.T, db *database) {
		o := outbox()
		o.Slot = db.name
		script, err := SQL(o)
		if err != nil {
			t.Fatal(err)
		}
		_, slot, found := strings.Cut(script, "COMMIT;")
		if !found {
			t.Fatal("the script has no COMMIT")
		}
		db.exec(slot)
		if got := db.query("SELECT count(*)::text FROM pg_replication_slots WHERE slot_name = $1", o.Slot); got != "0" {
			t.Error("a slot was made without its publication")
		}
	})
}

// The names of slots are those of the whole server.
func TestScriptWithATakenSlot(t *testing.T) {
	eachMajor(t, func(t *testing.T, db *database) {
		o := outbox()
		o.Slot = db.name
		script, err := SQL(o)
		if err != nil {
			t.Fatal(err)
		}
		db.exec("SELECT pg_create_physical_replication_slot('" + o.Slot + "')")
		if _, err := db.Exec(t.Context(), script); err == nil || !strings.Contains(err.Error(), "belongs to another database, or to none") {
			t.Errorf("the slot is taken: %v", err)
		}
		db.exec("ROLLBACK")
		db.exec("SELECT pg_drop_replication_slot('" + o.Slot + "')")
		if got := db.query("SELECT count(*)::text FROM pg_publication"); got != "0" {
			t.Error("the script has made its publication")
		}
	})
}

func TestChecks(t *testing.T) {
	eachMajor(t, func(t *testing.T, db *database) {
		if _, err := db.apply(outbox()); err != nil {
			t.Fatal(err)
		}
		insert := func(aggregateType, aggregateID, headers any) error {
			_, err := db.Exec(t.Context(), `INSERT INTO outbox (aggregatetype, aggregateid, headers) VALUES ($1, $2, $3::text::jsonb)`,
				aggregateType, aggregateID, headers)
			return err
		}
		bad := []struct {
			constraint                          string
			aggregateType, aggregateID, headers any
		}{
			{"aggregateid_is_not_empty", "order", "", nil},
			{"aggregatetype_is_part_of_a_topic", "", "1", nil},
			{"aggregatetype_is_part_of_a_topic", "..", "1", nil},
			{"aggregatetype_is_part_of_a_topic", ".", "1", nil},
			{"aggregatetype_is_part_of_a_topic", "a b", "1", nil},
			{"aggregatetype_is_part_of_a_topic", "ä", "1", nil},
			{"aggregatetype_is_part_of_a_topic", "a\n", "1", nil},
			{"aggregatetype_is_part_of_a_topic", strings.Repeat("a", 201), "1", nil},
			{"headers_are_an_object", "order", "1", `["a"]`},
			{"headers_are_an_object", "order", "1", `[]`},
			{"headers_are_an_object", "order", "1", `"a"`},
			{"headers_are_an_object", "order", "1", `1`},
			{"headers_are_an_object", "order", "1", `[null]`},
		}
		for _, row := range bad {
			var refused *pgconn.PgError
			err := insert(row.aggregateType, row.aggregateID, row.headers)
			if !errors.As(err, &refused) || refused.ConstraintName != row.constraint {
				t.Errorf("%q %q %v: %v", row.aggregateType, row.aggregateID, row.headers, err)
			}
		}
		for _, headers := range []any{nil, `null`, `{}`, `{"traceparent": "00-1", "": ""}`, `{"a": null}`, `{"a": "b", "c": null}`, `{"a": {"b": ["c"]}, "d": 1, "e": true}`} {
			if err := insert("Order.v1_x-y", "1", headers); err != nil {
				t.Errorf("%v: %v", headers, err)
			}
		}
		if err := insert(nil, "1", nil); err == nil {
			t.Error("aggregatetype may be NULL")
		}
		if err := insert("order", nil, nil); err == nil {
			t.Error("aggregateid may be NULL")
		}
	})
}

func TestForeignTables(t *testing.T) {
	const good = "id bigint NOT NULL, aggregatetype text NOT NULL, aggregateid bigint NOT NULL, payload bytea"
	tests := []struct {
		name, ddl string
		columns   map[string]string
		lines     string // Pieces of the report, separated by |; the first decides whether it is a problem.
	}{
		{"other types", "CREATE TABLE outbox (" + good + ", extra int)", nil, "table public.outbox: found"},
		{
			"mapped", `CREATE TABLE outbox (event_id uuid NOT NULL, "Type" varchar(50) NOT NULL, aggregateid text NOT NULL, payload json)`,
			map[string]string{"id": "event_id", "aggregatetype": "Type"},
			"table public.outbox: found",
		},
		{"partitioned", "CREATE TABLE outbox (" + good + ") PARTITION BY LIST (id)", nil, "table public.outbox: found"},
		{
			"missing", `CREATE TABLE outbox (id int NOT NULL, aggregate_type text, aggregateid text NOT NULL, payload jsonb)`, nil,
			`problem: table public.outbox: column "aggregatetype" is missing|--columns aggregatetype=NAME (WALPOST_COLUMNS)|aggregate_type, aggregateid, id, payload`,
		},
		{
			"mapped to nothing", "CREATE TABLE outbox (" + good + ")",
			map[string]string{"type": "kind"},
			`problem: table public.outbox: column "kind" is missing, which --columns`,
		},
		{
			"payload type", "CREATE TABLE outbox (id int NOT NULL, aggregatetype text NOT NULL, aggregateid text NOT NULL, payload int)", nil,
			`problem: table public.outbox: column "payload" is of type integer`,
		},
		{"headers type", "CREATE TABLE outbox (" + good + ", headers bytea)", nil, `problem: table public.outbox: column "headers" is of type bytea`},
		{
			"generated", "CREATE TABLE outbox (id int NOT NULL, aggregatetype text NOT NULL, aggregateid text GENERATED ALWAYS AS ('a') STORED, payload json)", nil,
			`problem: table public.outbox: column "aggregateid" is generated`,
		},
		{
			"nullable", "CREATE TABLE outbox (id int NOT NULL, aggregatetype text NOT NULL, aggregateid text, payload json)", nil,
			`warning: table public.outbox: column "aggregateid" may be NULL|ALTER TABLE "public"."outbox" ALTER COLUMN "aggregateid" SET NOT NULL;`,
		},
		{"unlogged", "CREATE UNLOGGED TABLE outbox (" + good + ")", nil, `problem: table public.outbox: is unlogged|ALTER TABLE "public"."outbox" SET LOGGED;`},
		{"view", "CREATE VIEW outbox AS SELECT 1 AS id", nil, "problem: table public.outbox: is not a table"},
	}
	eachMajor(t, func(t *testing.T, db *database) {
		for _, test := range tests {
			db.exec("DROP PUBLICATION IF EXISTS walpost; DROP SCHEMA public CASCADE; CREATE SCHEMA public; " + test.ddl)
			o := outbox()
			o.Columns = test.columns
			report, err := db.apply(o)
			wantPieces(t, test.name, report, test.lines)
			var problems *ProblemError
			if wrong := strings.HasPrefix(test.lines, "problem"); wrong != errors.As(err, &problems) || !wrong && err != nil {
				t.Errorf("%s: error %v", test.name, err)
			}
			if got := db.query("SELECT count(*)::text FROM pg_publication"); (got == "1") != (err == nil) {
				t.Errorf("%s: %s publications after %v", test.name, got, err)
			}
		}
	})
}

func TestSchemaMissing(t *testing.T) {
	eachMajor(t, func(t *testing.T, db *database) {
		o := outbox()
		o.Tables = []Table{{"app", "outbox"}}
		report, err := db.apply(o)
		if err == nil {
			t.Fatal("no error")
		}
		wantPieces(t, "schema", report, `problem: table app.outbox: its schema does not exist|CREATE SCHEMA "app";`)
		db.exec(report.Problems()[0].SQL[0])
		if _, err := db.apply(o); err != nil {
			t.Error(err)
		}
	})
}

func TestServerSettings(t *testing.T) {
	t.Parallel()
	p, err := makePlan(facts{walLevel: "replica", standby: true, role: "me", replication: true, dbCreate: true}, outbox())
	if err != nil {
		t.Fatal(err)
	}
	wantPieces(t, "server", p.Report, "wal_level is replica|ALTER SYSTEM SET wal_level = 'logical';|is a standby")
}

func TestOptions(t *testing.T) {
	t.Parallel()
	for name, o := range map[string]Options{
		"no table":       {Publication: "p"},
		"no publication": {Tables: []Table{{"a", "b"}}},
		"no schema":      {Tables: []Table{{"", "b"}}, Publication: "p"},
		"zero byte":      {Tables: []Table{{"a", "b\x00"}}, Publication: "p"},
	} {
		if _, err := SQL(o); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
}
