package cdc

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
)

// TestAwaitTheNewestWriter: nothing that was begun after the open transaction has ended yet, so no snapshot counts it among those in
// progress. And a role that may not see when others began names them all the same.
func TestAwaitTheNewestWriter(t *testing.T) {
	t.Parallel()
	for _, major := range []int{14, 18} {
		t.Run(fmt.Sprint("postgres ", major), func(t *testing.T) {
			t.Parallel()
			f := setup(t, major, map[string]string{"autovacuum": "off"})
			f.exec("CREATE ROLE limited LOGIN")
			limited, err := pgx.Connect(t.Context(), f.server.URL("postgres")+"&user=limited")
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { _ = limited.Close(context.Background()) })
			f.exec("BEGIN")
			f.exec("INSERT INTO outbox VALUES (1, 'open')")
			want := fmt.Sprintf("pid %s of postgres", f.value("SELECT pg_backend_pid()"))

			said := ""
			ctx, cancel := context.WithTimeout(t.Context(), 1500*time.Millisecond)
			defer cancel()
			err = AwaitWriters(ctx, limited, func(holder string) { said = holder })
			if !errors.Is(err, context.DeadlineExceeded) || said != want {
				t.Errorf("AwaitWriters = %v beside an open writer, after it named %q; want a timeout, and %q", err, said, want)
			}
			cfg := f.cfg
			cfg.Postgres = cfg.Postgres.Copy()
			cfg.Postgres.User = "limited"
			if view, err := Inspect(t.Context(), cfg); err != nil || !strings.HasPrefix(view.Holder, "pid ") {
				t.Errorf("Inspect names %q, %v", view.Holder, err)
			}
			f.exec("COMMIT")
			if err := AwaitWriters(t.Context(), limited, func(holder string) { t.Errorf("waited for %q", holder) }); err != nil {
				t.Fatal(err)
			}
		})
	}
}

// TestNoTLS: who is refused TLS reads why it was asked for.
func TestNoTLS(t *testing.T) {
	t.Parallel()
	err := ConnectError("db", 5432, errors.New("failed to connect: tls error: server refused TLS connection"))
	if !strings.Contains(err.Error(), "sslmode") {
		t.Errorf("ConnectError = %v", err)
	}
}
