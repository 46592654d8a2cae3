package cdc

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgconn"
	"github.com/rs/zerolog"

	"github.com/walpost/walpost/internal/pgserver"
)

// dark returns an address that accepts connections and never answers.
func dark(t *testing.T) string {
	t.Helper()
	listener, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = listener.Close() })
	return listener.Addr().String()
}

// slowly returns an address that forwards connections to another one after a while.
func slowly(t *testing.T, to string, after time.Duration) string {
	t.Helper()
	listener, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = listener.Close() })
	go func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			go func() {
				defer func() { _ = conn.Close() }()
				<-time.After(after)
				server, err := (&net.Dialer{}).Dial("tcp", to)
				if err != nil {
					return
				}
				defer func() { _ = server.Close() }()
				go func() { _, _ = io.Copy(server, conn); _ = server.Close() }()
				_, _ = io.Copy(conn, server)
			}()
		}
	}()
	return listener.Addr().String()
}

// fastest is the shortest of several attempts: a busy machine may hold one up, and a dark address
// each.
func fastest(connect func(context.Context) time.Duration) time.Duration {
	shortest := connect(context.Background())
	for range 4 {
		shortest = min(shortest, connect(context.Background()))
	}
	return shortest
}

// TestHosts: dark addresses cost a moment each, once, and are named once; the one that answered
// comes first, unless it was unfit.
func TestHosts(t *testing.T) {
	t.Parallel()
	server, err := pgserver.Start(t.Context(), pgserver.Options{Major: 15})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = server.Close() })
	u, err := url.Parse(server.URL("postgres"))
	if err != nil {
		t.Fatal(err)
	}
	good := u.Host
	first, second := dark(t), dark(t)
	u.Host = strings.Join([]string{first, second, good}, ",")
	settings, err := pgconn.ParseConfig(u.String())
	if err != nil {
		t.Fatal(err)
	}
	var log bytes.Buffer
	cfg := Config{Postgres: settings, Slot: "s", Hosts: &Hosts{}, Log: zerolog.New(&log)}
	connect := func(ctx context.Context) time.Duration {
		t.Helper()
		began := time.Now()
		pg, err := cfg.connect(ctx)
		if err != nil {
			t.Fatal(err)
		}
		took := time.Since(began)
		_ = pg.Close(ctx)
		return took
	}
	if took := connect(t.Context()); took < 2*nextHost {
		t.Errorf("the third address was taken after %s, want two waits of %s", took, nextHost)
	}
	if took := fastest(connect); took > nextHost {
		t.Errorf("the address that answered last took %s", took)
	}
	cfg.Hosts.MarkUnfit() // if it is a standby, for example: the others come first
	if took := connect(t.Context()); took < 2*nextHost {
		t.Errorf("an address that is unfit was tried first, in %s", took)
	}
	for _, addr := range []string{first, second} {
		if n := strings.Count(log.String(), `"address":"`+addr+`"`); n != 1 {
			t.Errorf("%s was named %d times, want once:\n%s", addr, n, log.String())
		}
	}

	// Several addresses of one name, of which the first is dark.
	named, err := pgconn.ParseConfig(strings.Replace(server.URL("postgres"), "127.0.0.1", "db.invalid", 1))
	if err != nil {
		t.Fatal(err)
	}
	_, port, _ := net.SplitHostPort(good)
	named.LookupFunc = func(context.Context, string) ([]string, error) {
		return []string{first, "127.0.0.1:" + port}, nil
	}
	cfg.Postgres, cfg.Hosts = named, &Hosts{}
	connect(t.Context())
	if took := fastest(connect); took > nextHost {
		t.Errorf("the second address of a name took %s", took)
	}

	// A standby accepts a connection before its primary, which is slow.
	slow := slowly(t, good, nextHost*3/2)
	u.Host = good + "," + slow
	if cfg.Postgres, err = pgconn.ParseConfig(u.String()); err != nil {
		t.Fatal(err)
	}
	cfg.Hosts = &Hosts{unfit: good}
	connect(t.Context())
	if cfg.Hosts.last != slow {
		t.Errorf("%q was taken, want %q, which is slow but not unfit", cfg.Hosts.last, slow)
	}

	// One address refuses for good, and another is away: that is an outage.
	away := &net.OpError{Op: "dial", Err: errors.New("refused")}
	wrong := &pgconn.PgError{Code: "42704", Message: "unrecognized configuration parameter"}
	pooler := poolerError(errors.New("the settings did not arrive")) // which is found after the login
	for _, c := range []struct {
		errs      []error
		transient bool
	}{
		{[]error{away, wrong}, true},
		{[]error{wrong, wrong}, false},
		{[]error{away, pooler}, true},
		{[]error{pooler, wrong}, false},
		{[]error{wrong}, false},
		{[]error{away, away}, true},
	} {
		if got := Transient(cfg.connectError(newHostsError(c.errs))); got != c.transient {
			t.Errorf("%v is transient: %t, want %t", c.errs, got, c.transient)
		}
	}

	// None answers: an outage, as long as the caller waits.
	u.Host = first + "," + second
	if cfg.Postgres, err = pgconn.ParseConfig(u.String()); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Second)
	defer cancel()
	if _, err := cfg.connect(ctx); err == nil || !Transient(err) {
		t.Errorf("nobody answers: %v", err)
	}
	named.LookupFunc = func(context.Context, string) ([]string, error) { return nil, errors.New("no such name") }
	cfg.Postgres = named
	if _, err := cfg.connect(t.Context()); err == nil || !strings.Contains(err.Error(), "no such name") {
		t.Errorf("a name without an address: %v", err)
	}
}

// TestSessionSettings: a URL cannot change the settings that our sessions depend on, however they
// are written. Other settings count.
func TestSessionSettings(t *testing.T) {
	t.Parallel()
	settings, err := pgconn.ParseConfig("postgres://u@h/d?DateStyle=German&search_path=evil&work_mem=1MB" +
		"&application_name=mine")
	if err != nil {
		t.Fatal(err)
	}
	Config{Slot: "s"}.Prepare(settings)
	seen := map[string]bool{}
	for name, value := range settings.RuntimeParams {
		if seen[strings.ToLower(name)] {
			t.Errorf("%s is there twice", name)
		}
		seen[strings.ToLower(name)] = true
		if want, ours := sessionSettings[strings.ToLower(name)]; ours && want != value {
			t.Errorf("%s = %s, want %s", name, value, want)
		}
	}
	got := settings.RuntimeParams
	if got["work_mem"] != "1MB" || got["application_name"] != "mine" || !seen["search_path"] {
		t.Errorf("settings are %v", got)
	}
}
