package cdc

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
)

// TestAwaitTheNewestWriter: no transaction that began after the open one has ended yet, so no
// snapshot has the open one in progress. A role that may not see when others began names them all
// the same.
func TestAwaitTheNewestWriter(t *testing.T) {
	t.Parallel()
	for _, major := range []int{14, 18} {
		t.Run(fmt.Sprint("postgres ", major), func(t *testing.T) {
			t.Parallel()
			f := setup(t, major, map[string]string{"autovacuum": "off"})
			f.exec("CREATE ROLE limited LOGIN")
			connect := func(user string) *pgx.Conn {
				conn, err := pgx.Connect(t.Context(), f.server.URL("postgres")+"&user="+user)
				if err != nil {
					t.Fatal(err)
				}
				t.Cleanup(func() { _ = conn.Close(context.Background()) })
				return conn
			}
			limited, admin := connect("limited"), connect("postgres")
			f.exec("BEGIN")
			f.exec("INSERT INTO outbox VALUES (1, 'open')")
			writer := "pid " + f.value("SELECT pg_backend_pid()")
			cfg := f.cfg
			cfg.Postgres = cfg.Postgres.Copy()
			cfg.Postgres.User = "limited"
			names := func(since bool) {
				t.Helper()
				said := ""
				ctx, cancel := context.WithCancel(t.Context())
				err := AwaitWriters(ctx, limited, func(holder string) { said = holder; cancel() })
				if !errors.Is(err, context.Canceled) || !strings.HasPrefix(said, writer+" of postgres") ||
					strings.Contains(said, ", since ") != since {
					t.Errorf("AwaitWriters = %v beside an open writer, after it named %q; "+
						"want it to wait for %s, since when: %t", err, said, writer, since)
				}
				view, err := Inspect(t.Context(), cfg)
				if err != nil || !strings.HasPrefix(view.Holder, writer) ||
					strings.Contains(view.Holder, " since ") != since {
					t.Errorf("Inspect names %q, %v; want %s, since when: %t", view.Holder, err, writer, since)
				}
			}
			names(false)
			if _, err := admin.Exec(t.Context(), "GRANT pg_read_all_stats TO limited"); err != nil {
				t.Fatal(err)
			}
			names(true)
			f.exec("COMMIT")
			waiting := func(holder string) { t.Errorf("waited for %q", holder) }
			if err := AwaitWriters(t.Context(), limited, waiting); err != nil {
				t.Fatal(err)
			}
		})
	}
}

// TestNoTLS: the error of a server without TLS says why TLS was asked for.
func TestNoTLS(t *testing.T) {
	t.Parallel()
	err := ConnectError("db", 5432, errors.New("failed to connect: tls error: server refused TLS connection"))
	if !strings.Contains(err.Error(), "sslmode") {
		t.Errorf("ConnectError = %v", err)
	}
	// With sslmode=prefer the driver tries again without TLS.
	refused := &pgconn.PgError{Code: "3D000", Message: "no such database"}
	err = ConnectError("db", 5432, errors.Join(err, refused))
	if strings.Contains(err.Error(), "sslmode") || !strings.Contains(err.Error(), "no such database") {
		t.Errorf("ConnectError = %v, want the server's own answer", err)
	}
}
