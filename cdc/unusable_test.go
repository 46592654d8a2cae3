package cdc

import (
	"errors"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgproto3"
)

// answering is a server that answers as others did: refusal to a startup packet, or, if that is nil, syntax to every command but SELECT.
func answering(t *testing.T, version string, refusal *pgproto3.ErrorResponse) Config {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	t.Cleanup(func() { _ = listener.Close(); <-done })
	go func() {
		defer close(done)
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			answer(conn, version, refusal)
			_ = conn.Close()
		}
	}()
	cfg, err := pgconn.ParseConfig("postgres://me@" + listener.Addr().String() + "/app?sslmode=disable")
	if err != nil {
		t.Fatal(err)
	}
	return Config{Postgres: cfg, Slot: "walpost", Publication: "walpost"}
}

func answer(conn net.Conn, version string, refusal *pgproto3.ErrorResponse) {
	_ = conn.SetDeadline(time.Now().Add(10 * time.Second))
	b := pgproto3.NewBackend(conn, conn)
	if _, err := b.ReceiveStartupMessage(); err != nil {
		return
	}
	if refusal != nil {
		b.Send(refusal)
		_ = b.Flush()
		return
	}
	b.Send(&pgproto3.AuthenticationOk{})
	b.Send(&pgproto3.ParameterStatus{Name: "server_version", Value: version})
	for {
		b.Send(&pgproto3.ReadyForQuery{TxStatus: 'I'})
		if b.Flush() != nil {
			return
		}
		message, err := b.Receive()
		query, ok := message.(*pgproto3.Query)
		switch {
		case err != nil || !ok:
			return
		case strings.HasPrefix(query.String, "SELECT"):
			b.Send(&pgproto3.CommandComplete{CommandTag: []byte("SELECT 0")})
		default:
			b.Send(&pgproto3.ErrorResponse{Severity: "ERROR", SeverityUnlocalized: "ERROR", Code: "42601", Message: "syntax error at or near \"IDENTIFY_SYSTEM\""})
		}
	}
}

// TestUnusableSettings recognises what no wait mends, as PgBouncer 1.18 and others answer it.
func TestUnusableSettings(t *testing.T) {
	t.Parallel()
	fatal := func(code, message, routine string) *pgproto3.ErrorResponse {
		return &pgproto3.ErrorResponse{Severity: "FATAL", SeverityUnlocalized: "FATAL", Code: code, Message: message, Routine: routine}
	}
	for _, c := range []struct {
		name, version string
		refusal       *pgproto3.ErrorResponse
		says          string // empty: no fault of the settings
	}{
		{"PgBouncer", "", fatal("08P01", "unsupported startup parameter: replication", ""), "pooler"},
		{"PgBouncer of an inspection", "", fatal("08P01", "unsupported startup parameter: bytea_output", ""), "pooler"},
		{"a pooler that takes it for SQL", "16.4", nil, "pooler"},
		{"RDS Proxy", "", fatal("0A000", "Feature not supported: RDS Proxy currently doesn't support streaming replication mode", ""), "pooler"},
		{"Postgres 13", "", fatal("42704", `unrecognized configuration parameter "idle_session_timeout"`, ""), "needs 14 or later"},
		{"Postgres 13 behind something", "13.14 (Debian 13.14-1)", nil, "needs 14 or later"},
		{"an unknown parameter", "", fatal("42704", `unrecognized configuration parameter "foo"`, ""), `"foo"`},
		{"a value", "", fatal("22023", `invalid value for parameter "work_mem": "x"`, ""), `"work_mem"`},
		{"one for superusers", "", fatal("42501", `permission denied to set parameter "session_replication_role"`, "set_config_with_handle"), `"session_replication_role"`},
		{"a right", "", fatal("42501", "must be superuser or replication role", "InitPostgres"), ""},
		{"a start", "", fatal("57P03", "the database system is starting up", ""), ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			_, err := Connect(t.Context(), answering(t, c.version, c.refusal))
			var settings *SettingsError
			if found := errors.As(err, &settings); found != (c.says != "") || found && (Transient(err) || !strings.Contains(err.Error(), c.says)) {
				t.Errorf("Connect = %v, transient %t; want it to say %q", err, Transient(err), c.says)
			}
			if c.refusal == nil {
				return
			}
			if _, err := Inspect(t.Context(), answering(t, c.version, c.refusal)); errors.As(err, &settings) != (c.says != "") {
				t.Errorf("Inspect = %v", err)
			}
		})
	}
}
