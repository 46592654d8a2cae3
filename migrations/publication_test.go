package migrations

import (
	"strings"
	"testing"
)

func TestPublications(t *testing.T) {
	tests := []struct {
		name, ddl string
		from      int // The first major that has it.
		pieces    string
	}{
		{"misses the table", "CREATE PUBLICATION walpost FOR TABLE other", 14, "publication walpost: extended by table public.outbox"},
		{"empty", "CREATE PUBLICATION walpost", 14, "publication walpost: extended by table public.outbox"},
		{"publishes more", "CREATE PUBLICATION walpost FOR TABLE outbox", 14, "publication walpost: found"},
		{
			"no insert", "CREATE PUBLICATION walpost FOR TABLE outbox WITH (publish = 'update')", 14,
			`problem: publication walpost: does not publish INSERT|ALTER PUBLICATION "walpost" SET (publish = 'insert');`,
		},
		{"all tables", "CREATE PUBLICATION walpost FOR ALL TABLES", 14, "warning: publication walpost: is FOR ALL TABLES|publication walpost: found"},
		{"schema", "CREATE PUBLICATION walpost FOR TABLES IN SCHEMA public", 15, "publication walpost: found"},
		{
			"row filter", "CREATE PUBLICATION walpost FOR TABLE outbox WHERE (aggregateid > 'a') WITH (publish = 'insert')", 15,
			"problem: publication walpost: filters the rows of public.outbox|" +
				`BEGIN; ALTER PUBLICATION "walpost" DROP TABLE "public"."outbox"; ALTER PUBLICATION "walpost" ADD TABLE "public"."outbox"; COMMIT;`,
		},
		{
			"column list", "CREATE PUBLICATION walpost FOR TABLE outbox (id, aggregatetype, payload, type, headers)", 15,
			`problem: publication walpost: leaves out column "aggregateid" of public.outbox|DROP TABLE`,
		},
		{
			"column list without headers", "CREATE PUBLICATION walpost FOR TABLE outbox (id, aggregatetype, aggregateid, payload, type)", 15,
			`warning: publication walpost: leaves out column "headers" of public.outbox`,
		},
		{
			"full column list", "CREATE PUBLICATION walpost FOR TABLE outbox (id, aggregatetype, aggregateid, payload, type, headers)", 15,
			"publication walpost: found",
		},
		{
			"partitions", "DROP TABLE outbox; CREATE TABLE outbox (id int NOT NULL, aggregatetype text NOT NULL, aggregateid text NOT NULL, payload jsonb) " +
				"PARTITION BY LIST (id); CREATE PUBLICATION walpost FOR TABLE outbox", 14,
			`problem: publication walpost: names the partitions of public.outbox|ALTER PUBLICATION "walpost" SET (publish_via_partition_root = true);`,
		},
	}
	eachMajor(t, func(t *testing.T, db *database) {
		create, err := outbox().createTable(Table{"public", "outbox"})
		if err != nil {
			t.Fatal(err)
		}
		for _, test := range tests {
			if db.major < test.from {
				continue
			}
			db.exec("DROP PUBLICATION IF EXISTS walpost; DROP TABLE IF EXISTS outbox, other; CREATE TABLE other (); " + create + ";" + test.ddl)
			report, err := db.apply(outbox())
			wantPieces(t, test.name, report, test.pieces)
			if text := strings.Join(report.Lines(), "\n"); strings.Contains(text, "extended by") && strings.Contains(text, "publishes insert of public.outbox") {
				t.Errorf("%s: a table that is added is said to be there:\n%s", test.name, text)
			}
			if wrong := strings.Contains(test.pieces, "problem"); wrong != (err != nil) {
				t.Errorf("%s: error %v", test.name, err)
			}
			for _, finding := range report.Problems() {
				for _, sql := range finding.SQL {
					db.exec(sql)
				}
			}
			report, err = db.apply(outbox())
			if err != nil || len(report.Problems()) > 0 {
				t.Errorf("%s: after its SQL: %v\n%v", test.name, err, report.Lines())
			}
		}
	})
}
