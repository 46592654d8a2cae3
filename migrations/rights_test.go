package migrations

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"
)

func TestMissingRights(t *testing.T) {
	eachMajor(t, func(t *testing.T, db *database) {
		db.exec("REVOKE CREATE ON SCHEMA public FROM PUBLIC")
		conn, role := db.as("NOREPLICATION")
		refused := func(pieces string) {
			t.Helper()
			report, err := Apply(t.Context(), conn, outbox())
			var problems *ProblemError
			if !errors.As(err, &problems) || !strings.Contains(err.Error(), "nothing was changed") {
				t.Fatalf("got %v\n%v", err, report.Lines())
			}
			wantPieces(t, pieces, report, pieces)
			for _, finding := range problems.Problems {
				for _, sql := range finding.SQL {
					db.exec(sql)
				}
			}
		}
		db.exec("CREATE TABLE outbox (id int NOT NULL, aggregatetype text NOT NULL, aggregateid text NOT NULL, payload jsonb); CREATE ROLE owner_of_" + db.name +
			"; ALTER TABLE outbox OWNER TO owner_of_" + db.name)
		refused(fmt.Sprintf(`problem: role %[1]s: may not use replication slots|ALTER ROLE "%[1]s" REPLICATION;|GRANT CREATE ON DATABASE "%[2]s" TO "%[1]s";|`+
			`only the owner of table public.outbox, role owner_of_%[2]s, may publish it|GRANT "owner_of_%[2]s" TO "%[1]s";|walpost init --print`, role, db.name))
		if _, err := Apply(t.Context(), conn, outbox()); err != nil {
			t.Errorf("after the SQL of the problems: %v", err)
		}

		db.exec("DROP PUBLICATION walpost; ALTER TABLE outbox OWNER TO postgres")
		owned, err := Apply(t.Context(), conn, outbox())
		if text := strings.Join(owned.Lines(), " "); err == nil || !strings.Contains(text, "role postgres, may publish it") || strings.Contains(text, `GRANT "postgres"`) {
			t.Errorf("a table of a superuser: %v\n%s", err, text)
		}

		db.exec("DROP TABLE outbox; CREATE PUBLICATION walpost; REVOKE owner_of_" + db.name + " FROM " + role)
		refused(fmt.Sprintf(`table public.outbox: does not exist, and role %[1]s may not create it|GRANT USAGE, CREATE ON SCHEMA "public" TO "%[1]s";`, role))
		report, err := Apply(t.Context(), conn, outbox())
		if err == nil {
			t.Error("a role added its table to somebody else's publication")
		}
		wantPieces(t, "foreign publication", report, `publication walpost: does not hold table public.outbox, and role `+role+` may not add it: that takes the owner of the publication, postgres,|`+
			`ALTER PUBLICATION "walpost" ADD TABLE "public"."outbox";`)

		// A role that owns nothing is enough once everything is there.
		db.exec("DROP PUBLICATION walpost; DROP TABLE IF EXISTS outbox")
		if _, err := db.apply(outbox()); err != nil {
			t.Fatal(err)
		}
		if report, err = Apply(t.Context(), conn, outbox()); err != nil {
			t.Fatal(err)
		}
		wantLines(t, report, "table public.outbox: found, its columns fit", "publication walpost: found, publishes insert of public.outbox")
	})
}

func TestRefusedStatement(t *testing.T) {
	db := newDatabase(t, majors[0])
	conn, role := db.as("")
	err := pgx.BeginFunc(t.Context(), conn, func(tx pgx.Tx) error {
		p := plan{statements: []string{"ALTER ROLE postgres NOLOGIN"}, facts: facts{role: role}}
		return p.execute(t.Context(), tx)
	})
	if err == nil || !strings.Contains(err.Error(), "walpost init --print") || !strings.Contains(err.Error(), role) {
		t.Errorf("got %v", err)
	}
}
