package migrations

import (
	"context"
	"fmt"
	"net/url"
	"os"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"go.uber.org/goleak"

	"github.com/walpost/walpost/internal/pgserver"
)

// majors are the versions whose catalogs differ: before column lists, with them, and the newest.
var majors = []int{14, 15, 18}

var servers = map[int]*pgserver.Server{}

func TestMain(m *testing.M) {
	code := 1
	defer func() { os.Exit(code) }()
	defer func() {
		for _, server := range servers {
			if err := server.Close(); err != nil {
				fmt.Fprintln(os.Stderr, err)
				code = 1
			}
		}
		if err := goleak.Find(); err != nil {
			fmt.Fprintln(os.Stderr, err)
			code = 1
		}
	}()
	for _, major := range majors {
		ctx, cancel := context.WithTimeout(context.Background(), 5*time.Minute)
		server, err := pgserver.Start(ctx, pgserver.Options{Major: major})
		cancel()
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			return
		}
		servers[major] = server
	}
	code = m.Run()
}

// eachMajor runs a test against every server, each in a database of its own.
func eachMajor(t *testing.T, test func(t *testing.T, db *database)) {
	t.Helper()
	t.Parallel()
	for _, major := range majors {
		t.Run(fmt.Sprint(major), func(t *testing.T) {
			t.Parallel()
			test(t, newDatabase(t, major))
		})
	}
}

var counter atomic.Int64

// database is one empty database, and its owner's connection.
type database struct {
	*pgx.Conn
	t     *testing.T
	name  string
	major int
}

func newDatabase(t *testing.T, major int) *database {
	t.Helper()
	db := &database{t: t, name: fmt.Sprintf("test_%d", counter.Add(1)), major: major}
	admin := db.connect(servers[major].URL("postgres"))
	if _, err := admin.Exec(t.Context(), "CREATE DATABASE "+db.name); err != nil {
		t.Fatal(err)
	}
	db.Conn = db.connect(servers[major].URL(db.name))
	return db
}

func (db *database) connect(address string) *pgx.Conn {
	db.t.Helper()
	conn, err := pgx.Connect(db.t.Context(), address)
	if err != nil {
		db.t.Fatal(err)
	}
	db.t.Cleanup(func() {
		if err := conn.Close(context.Background()); err != nil {
			db.t.Error(err)
		}
	})
	return conn
}

// as connects as another role, which it creates.
func (db *database) as(attributes string) (conn *pgx.Conn, role string) {
	db.t.Helper()
	role = "role_of_" + db.name
	db.exec(fmt.Sprintf("CREATE ROLE %s LOGIN %s", role, attributes))
	u, err := url.Parse(servers[db.major].URL(db.name))
	if err != nil {
		db.t.Fatal(err)
	}
	u.User = url.User(role)
	return db.connect(u.String()), role
}

// exec runs a script through the simple protocol, as psql -f does.
func (db *database) exec(script string) {
	db.t.Helper()
	if _, err := db.PgConn().Exec(db.t.Context(), script).ReadAll(); err != nil {
		db.t.Fatalf("%v\n%s", err, script)
	}
}

func (db *database) query(sql string, args ...any) string {
	db.t.Helper()
	var got string
	if err := db.QueryRow(db.t.Context(), sql, args...).Scan(&got); err != nil {
		db.t.Fatalf("%v\n%s", err, sql)
	}
	return got
}

func (db *database) apply(o Options) (Report, error) {
	db.t.Helper()
	return Apply(db.t.Context(), db.Conn, o)
}

func wantLines(t *testing.T, r Report, want ...string) {
	t.Helper()
	got := strings.Join(r.Lines(), "\n")
	if got != strings.Join(want, "\n") {
		t.Errorf("got\n%s\nwant\n%s", got, strings.Join(want, "\n"))
	}
}

func wantPieces(t *testing.T, name string, report Report, pieces string) {
	t.Helper()
	text := strings.Join(report.Lines(), "\n")
	for piece := range strings.SplitSeq(pieces, "|") {
		if !strings.Contains(text, piece) {
			t.Errorf("%s: nothing says %q:\n%s", name, piece, text)
		}
	}
}

func outbox() Options {
	return Options{Tables: []Table{{"public", "outbox"}}, Publication: "walpost", Slot: "walpost"}
}
