package cdc

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgconn"
)

func TestHistory(t *testing.T) {
	t.Parallel()
	h, err := parseHistory(3, []byte("1\t0/5000\tno recovery target specified\n\n# comment\n2\t1/0\tbefore 2026\n"))
	if err != nil {
		t.Fatal(err)
	}
	for lsn, want := range map[LSN]uint32{
		0x10: 1, 0x4FFF: 1, 0x5000: 2, 0xFFFFFFFF: 2, 0x100000000: 3, 0x200000000: 3,
	} {
		if got := h.At(lsn); got != want {
			t.Errorf("%s lies on timeline %d, want %d", lsn, got, want)
		}
	}
	if end, ok := h.Ended(2); !ok || end != 0x100000000 {
		t.Errorf("timeline 2 ended at %s, %t", end, ok)
	}
	if _, ok := h.Ended(3); ok {
		t.Error("the current timeline has ended")
	}
	for _, bad := range []string{"1\n", "x\t0/1\n", "1\tx\n"} {
		if _, err := parseHistory(2, []byte(bad)); err == nil {
			t.Errorf("%q was read", bad)
		}
	}
}

func TestTransient(t *testing.T) {
	t.Parallel()
	cfg := Config{Postgres: &pgconn.Config{User: "relay"}, Slot: "walpost", Publication: "walpost"}
	for code, want := range map[string]bool{
		"57P01": true, "57P02": true, "57P03": true, "57014": true, "08006": true, "53300": true, "53100": true,
		"28P01": true, "3D000": true, "58030": true, "55006": true,
		"42704": false, "55000": false, "42501": false, "XX000": false, "58P01": false, "22021": false,
		"54000": false, "": false,
	} {
		if got := Transient(cfg.serverError(&pgconn.PgError{Code: code, Message: "m"})); got != want {
			t.Errorf("SQLSTATE %q is transient: %t, want %t", code, got, want)
		}
	}
	if Transient(errors.New("never seen")) {
		t.Error("an unknown error is transient")
	}
	if !Transient(fmt.Errorf("read: %w", &brokenError{what: "gone"})) {
		t.Error("a broken connection is permanent")
	}
}

// TestStoppingInAnyLanguage: a server says that it shuts down in the language of its lc_messages.
func TestStoppingInAnyLanguage(t *testing.T) {
	t.Parallel()
	refused := &pgconn.PgError{Severity: "FATAL", Code: "57P03", Message: "das Datenbanksystem f\xe4hrt herunter"}
	if !Stopping(Config{Postgres: &pgconn.Config{}}.connectError(fmt.Errorf("connect: %w", refused))) {
		t.Error("a server that takes no connection is not stopping")
	}
	// Two addresses of one host.
	if !Stopping(errors.Join(errors.New("connection refused"), refused)) {
		t.Error("a server that takes no connection at one address and does not listen at another is not stopping")
	}
	for _, err := range []error{
		errors.New("connection refused"), &pgconn.PgError{Code: "53300"},
		errors.Join(refused, &pgconn.PgError{Code: "53300"}),
		fmt.Errorf("connect: %w", errors.Join(refused, fmt.Errorf("dial: %w", context.DeadlineExceeded))), nil,
	} {
		if Stopping(err) {
			t.Errorf("%v is a server that stops", err)
		}
	}
}

// healthy is a view of a database where nothing is wrong.
func healthy() View {
	return View{
		System: "7", Timeline: 1,
		Slot: &SlotView{Plugin: "pgoutput", Type: "logical", SameDatabase: true, WALStatus: "reserved"},
		Publication: &PublicationView{
			Identity: "1/1", Insert: true, ViaRoot: true,
			Tables: []PublicationTableView{{Schema: "public", Name: "outbox", Identity: "2/2"}},
		},
		Tables: []TableView{{Schema: "public", Name: "outbox", Kind: "r"}},
	}
}

func TestCheck(t *testing.T) {
	t.Parallel()
	cfg := Config{
		Postgres: &pgconn.Config{User: "relay"}, Slot: "walpost", Publication: "walpost",
		Tables: []Table{{"public", "outbox"}}, Columns: []string{"id", "headers"},
	}
	if err := healthy().Check(cfg); err != nil {
		t.Fatalf("a healthy view: %v", err)
	}
	for name, c := range map[string]struct {
		spoil func(*View)
		says  string
	}{
		"no slot":        {func(v *View) { v.Slot = nil }, "walpost init"},
		"physical slot":  {func(v *View) { v.Slot.Type = "physical" }, "physical"},
		"other plugin":   {func(v *View) { v.Slot.Plugin = "wal2json" }, "wal2json"},
		"other database": {func(v *View) { v.Slot.SameDatabase = false }, "database"},
		"lost":           {func(v *View) { v.Slot.WALStatus = "lost" }, "invalidated"},
		"invalidated":    {func(v *View) { v.Slot.Invalidation = "idle_timeout" }, "idle_timeout"},
		"conflicting":    {func(v *View) { v.Slot.Conflicting = true }, "invalidated"},
		"no publication": {func(v *View) { v.Publication = nil }, "publication"},
		"no inserts":     {func(v *View) { v.Publication.Insert = false }, "publish = 'insert'"},
		"no table":       {func(v *View) { v.Tables = nil }, "WALPOST_TABLE"},
		"not a member":   {func(v *View) { v.Publication.Tables = nil }, "ADD TABLE"},
		"row filter":     {func(v *View) { v.Publication.Tables[0].Filtered = true }, "filters"},
		"column list": {func(v *View) {
			v.Tables[0].Columns = []ColumnView{{Name: "id", Type: 25}, {Name: "headers", Type: 3802}}
			v.Publication.Tables[0].Columns = []string{"id"}
		}, "leaves out column \"headers\""},
		"unlogged": {func(v *View) { v.Tables[0].Unlogged = "outbox_b" }, "SET LOGGED"},
		"a child table": {func(v *View) {
			v.Tables[0].Child, v.Tables[0].Children = "public.outbox_12", 1
		}, "public.outbox_12"},
		"a view":         {func(v *View) { v.Tables[0].Kind = "v" }, "a view"},
		"under its root": {func(v *View) { v.Publication.Tables[0].Root = "public.all" }, "partition of public.all"},
		"two_phase": {
			func(v *View) { v.Slot.TwoPhase = true },
			"pg_copy_logical_replication_slot('walpost', 'walpost_copied')",
		},
		"a rule": {func(v *View) {
			v.Hazards = []TableHazards{{Rules: []HazardRule{{"r", "public.outbox", true}}}}
		}, `DROP RULE "r" ON public.outbox`},
		"generated, before 18": {func(v *View) {
			v.Tables[0].Columns = []ColumnView{{Name: "id"}, {Name: "headers", Generated: "s"}}
		}, "publish_generated_columns = stored"},
		"generated, virtual": {func(v *View) {
			v.Publication.Generated = "s"
			v.Tables[0].Columns = []ColumnView{{Name: "id"}, {Name: "headers", Generated: "v"}}
		}, "is generated"},
		"generated, not in the list": {func(v *View) {
			v.Publication.Generated = "s"
			v.Tables[0].Columns = []ColumnView{{Name: "id"}, {Name: "headers", Generated: "s"}}
			v.Publication.Tables[0].Columns = []string{"id"}
		}, "is generated"},
		"partitions": {func(v *View) {
			v.Tables[0].Kind, v.Publication.ViaRoot = "p", false
		}, "publish_via_partition_root"},
		"other namesake":  {func(v *View) { v.Publication.Tables[0].Schema = "other" }, "ADD TABLE"},
		"other namesake2": {func(v *View) { v.Tables[0].Schema = "other" }, "WALPOST_TABLE"},
	} {
		v := healthy()
		c.spoil(&v)
		var stop *StopError
		err := v.Check(cfg)
		if !errors.As(err, &stop) || Transient(err) || !strings.Contains(stop.What+stop.Hint, c.says) {
			t.Errorf("%s: %v (hint %q), want %q", name, err, stop.Hint, c.says)
		}
	}
	for name, change := range map[string]func(*View){
		"a rule with a condition": func(v *View) { v.Hazards = []TableHazards{{Rules: []HazardRule{{Name: "r"}}}} },
		"generated, published": func(v *View) {
			v.Publication.Generated = "s"
			v.Tables[0].Columns = []ColumnView{{Name: "id"}, {Name: "headers", Generated: "s"}}
		},
		"generated, in the list": func(v *View) {
			v.Tables[0].Columns = []ColumnView{{Name: "id"}, {Name: "headers", Generated: "s"}}
			v.Publication.Tables[0].Columns = []string{"id", "headers"}
		},
		"generated, of no event": func(v *View) {
			v.Tables[0].Columns = []ColumnView{{Name: "id"}, {Name: "other", Generated: "v"}}
		},
	} {
		v := healthy()
		change(&v)
		if err := v.Check(cfg); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	for name, spoil := range map[string]func(*View){
		"altered":       func(v *View) { v.Publication.Identity = "1/9" },
		"its root left": func(v *View) { v.Publication.Tables[0].Ancestors = "7/7" },
		"left and back": func(v *View) { v.Publication.Tables[0].Identity = "3/9" },
	} {
		v, before := healthy(), healthy()
		before.Publication.Tables[0].Ancestors = "6/6"
		v.Publication.Tables[0].Ancestors = "6/6"
		spoil(&v)
		if err := v.CheckUnaltered(cfg, before.Identity()); err == nil {
			t.Errorf("%s: nothing was noticed", name)
		}
	}
	anew := healthy()
	anew.Publication.Identity = "9999/1"
	var stop *StopError
	err := anew.CheckUnaltered(cfg, healthy().Identity())
	if !errors.As(err, &stop) || !stop.Gap || !strings.Contains(stop.Hint, "walpost init --accept-gap") {
		t.Errorf("a publication that was made anew, which the slot cannot read where it is: %v", err)
	}
	if err := healthy().CheckUnaltered(cfg, healthy().Identity()); err != nil {
		t.Errorf("the same twice: %v", err)
	}
	if err := healthy().CheckUnaltered(cfg, nil); err != nil {
		t.Errorf("nothing known of before: %v", err)
	}
	more := healthy()
	more.Publication.Tables = append(more.Publication.Tables,
		PublicationTableView{Schema: "public", Name: "outbox2", Identity: "5/5"})
	if err := more.CheckUnaltered(cfg, healthy().Identity()); err != nil {
		t.Errorf("a table that was added since: %v", err)
	}
}

// TestStrangers: rows of a table that only the publication names are skipped, which one is told.
func TestStrangers(t *testing.T) {
	t.Parallel()
	cfg := Config{Postgres: &pgconn.Config{User: "relay"}, Publication: "walpost", Tables: []Table{{"public", "outbox"}}}
	v := healthy()
	if found := v.Warnings(cfg); len(found) != 0 {
		t.Errorf("a healthy view: %v", found)
	}
	v.Publication.Strangers = []string{"public.a", `public."B"`, "public.c", "public.d", "public.e"}
	found := v.Warnings(cfg)
	if len(found) != 1 || !strings.HasSuffix(found[0].What, `public.a, public."B", public.c and 2 more`) ||
		!strings.Contains(found[0].Hint, `ALTER PUBLICATION "walpost" DROP TABLE public.a`) {
		t.Errorf("five strangers: %v", found)
	}
}

// TestCheckServer: an inspection of another server than that of the stream says nothing about the
// stream, and stops nothing.
func TestCheckServer(t *testing.T) {
	t.Parallel()
	if err := healthy().CheckServer("7", 1); err != nil {
		t.Errorf("the same server: %v", err)
	}
	for name, spoil := range map[string]func(*View){
		"another cluster": func(v *View) { v.System = "8" },
		"a standby":       func(v *View) { v.Timeline = 0 },
		"after promotion": func(v *View) { v.Timeline = 2 },
	} {
		v := healthy()
		spoil(&v)
		if err := v.CheckServer("7", 1); err == nil || !Transient(err) {
			t.Errorf("%s: %v, want an outage", name, err)
		}
	}
	standby := healthy()
	// It does not have the slot yet: no reason to stop, nor to drop anything.
	standby.Timeline, standby.Slot = 0, nil
	if err := standby.Check(Config{}); !errors.Is(err, ErrStandby) || !Transient(err) {
		t.Errorf("a standby without the slot: %v", err)
	}
}

// TestInspect inspects servers of the oldest and the newest version.
func TestInspect(t *testing.T) {
	t.Parallel()
	for _, major := range []int{14, 18} {
		t.Run(fmt.Sprint("postgres ", major), func(t *testing.T) {
			t.Parallel()
			f := setup(t, major, nil)
			end := parseLSN(f.value("pg_current_wal_flush_lsn()"))
			v, err := Inspect(t.Context(), f.cfg)
			if err != nil {
				t.Fatal(err)
			}
			if err := v.Check(f.cfg); err != nil {
				t.Error(err)
			}
			if v.System == "" || v.Timeline != 1 {
				t.Errorf("system %q, timeline %d", v.System, v.Timeline)
			}
			if v.WALEnd < end || v.Slot.Confirmed() == 0 || v.Slot.Restart() == 0 || v.Slot.Active {
				t.Errorf("WAL end %s, want %s; slot %+v", v.WALEnd, end, v.Slot)
			}
			payload := ColumnView{Name: "payload", Type: 25, Base: 25, TypeName: "text", BaseName: "text"}
			if len(v.Tables) != 1 || len(v.Tables[0].Columns) != 2 || v.Tables[0].Columns[1] != payload {
				t.Errorf("tables are %+v", v.Tables)
			}
			tx, err := f.sql.Begin(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			if _, err := tx.Exec(t.Context(), "INSERT INTO outbox VALUES (7, 'x')"); err != nil {
				t.Fatal(err)
			}
			held, err := Inspect(t.Context(), f.cfg)
			if err != nil || !strings.Contains(held.Holder, "pid ") {
				t.Errorf("the open transaction is not named: %q, %v", held.Holder, err)
			}
			if err := tx.Rollback(context.Background()); err != nil {
				t.Fatal(err)
			}
			idle := parseLSN(f.value("pg_current_wal_insert_lsn()"))
			v, err = Inspect(t.Context(), f.cfg)
			if err != nil || v.WALEnd > max(idle, parseLSN(f.value("pg_current_wal_flush_lsn()"))) {
				t.Errorf("an inspection at %s says that the WAL ends at %s (%v)", idle, v.WALEnd, err)
			}
			f.exec("CREATE ROLE plain LOGIN REPLICATION")
			plain := f.cfg
			plain.Postgres = f.cfg.Postgres.Copy()
			plain.Postgres.User = "plain"
			if seen, err := Inspect(t.Context(), plain); err != nil || len(seen.Hazards) != 1 {
				t.Errorf("a plain role sees hazards of %d tables, want 1 (%v)", len(seen.Hazards), err)
			}
			f.exec("ALTER ROLE plain SET default_transaction_isolation = serializable")
			conn, err := plain.connect(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			shown, err := conn.Exec(t.Context(), "SHOW transaction_isolation").ReadAll()
			if err != nil || string(shown[0].Rows[0][0]) != "read committed" {
				t.Errorf("the statements of an inspection share a snapshot: %v", err)
			}
			_ = conn.Close(t.Context())
			f.exec("REVOKE SELECT ON pg_catalog.pg_proc FROM PUBLIC")
			seen, err := Inspect(t.Context(), plain)
			if err != nil || seen.Slot == nil || len(seen.Tables) != 1 || len(seen.Hazards) != 0 {
				t.Errorf("a role that may not read pg_proc sees the rest: %v", err)
			}
			locker, err := f.sql.Begin(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			if _, err := locker.Exec(t.Context(), "LOCK TABLE pg_publication_rel"); err != nil {
				t.Fatal(err)
			}
			_, err = Inspect(t.Context(), f.cfg)
			lockedBy := fmt.Sprint("locked, by pid ", f.sql.PgConn().PID())
			if err == nil || !Transient(err) || !strings.Contains(err.Error(), lockedBy) {
				t.Errorf("an inspection that a locked catalog holds up: %v", err)
			}
			if err := locker.Rollback(t.Context()); err != nil {
				t.Fatal(err)
			}
			f.exec("ALTER PUBLICATION walpost SET (publish = 'update')")
			f.exec("ALTER PUBLICATION walpost SET (publish = 'insert')")
			altered, err := Inspect(t.Context(), f.cfg)
			if err != nil {
				t.Fatal(err)
			}
			if err := altered.CheckUnaltered(f.cfg, v.Identity()); err == nil {
				t.Error("inserts left the publication and came back, and nothing was noticed")
			}
			v = altered
			f.exec("ALTER PUBLICATION walpost DROP TABLE outbox")
			f.exec("ALTER PUBLICATION walpost ADD TABLE outbox")
			again, err := Inspect(t.Context(), f.cfg)
			if err != nil {
				t.Fatal(err)
			}
			if err := again.CheckUnaltered(f.cfg, v.Identity()); err == nil {
				t.Error("the table left the publication and came back, and nothing was noticed")
			}
			f.exec("DROP PUBLICATION walpost")
			for sql, says := range map[string]string{
				"SELECT pg_get_publication_tables('walpost')": "publication",
				"SELECT pg_drop_replication_slot('nosuch')":   "replication slot",
			} {
				var refused *pgconn.PgError
				if _, err := f.sql.Exec(t.Context(), sql); !errors.As(err, &refused) {
					t.Fatalf("%s: %v", sql, err)
				}
				refused.Message = "in any language"
				if err := f.cfg.serverError(refused); !strings.HasPrefix(err.Error(), says) {
					t.Errorf("%s: %v", sql, err)
				}
			}
		})
	}
}

// TestKeptConnection: a connection that inspections share is made anew if the server has ended it,
// and closed after a while.
func TestKeptConnection(t *testing.T) {
	t.Parallel()
	f := setup(t, 18, nil)
	var kept Inspector
	defer kept.Close()
	if _, err := kept.Inspect(t.Context(), f.cfg, true); err != nil || !kept.Open() {
		t.Fatalf("open %t, %v", kept.Open(), err)
	}
	f.exec(fmt.Sprintf("SELECT pg_terminate_backend(%d)", kept.pg.PID()))
	if _, err := kept.Inspect(t.Context(), f.cfg, true); err != nil || !kept.Open() {
		t.Errorf("after its end: open %t, %v", kept.Open(), err)
	}
	kept.since = time.Now().Add(-2 * maxConnectionAge)
	if _, err := kept.Inspect(t.Context(), f.cfg, true); err != nil || kept.Open() {
		t.Errorf("an old one: open %t, %v", kept.Open(), err)
	}
}

func TestQuote(t *testing.T) {
	t.Parallel()
	for in, want := range map[string]string{`a`: `'a'`, `a'b`: `'a''b'`, `a\b`: ` E'a\\b'`, `"`: `'"'`} {
		if got := quoteLiteral(in); got != want {
			t.Errorf("%s is quoted as %s, want %s", in, got, want)
		}
	}
	if got := quoteLiteral(quoteIdent(`my "pub"`)); got != `'"my ""pub"""'` {
		t.Errorf("a name is quoted twice as %s", got)
	}
}
