package cdc

import (
	"errors"
	"fmt"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgproto3"
)

// answering is a server that answers a startup packet with the refusal, or, if that is nil, every
// command but SELECT with a syntax error.
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

// ignoring is the version of a server that does not get the settings of our sessions.
const ignoring = "18.1 (behind a pooler)"

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
		case strings.Contains(query.String, readBack) && version == ignoring:
			b.Send(&pgproto3.RowDescription{Fields: []pgproto3.FieldDescription{{Name: []byte("a"), DataTypeOID: 25}}})
			b.Send(&pgproto3.DataRow{Values: [][]byte{[]byte("notice")}})
			b.Send(&pgproto3.CommandComplete{CommandTag: []byte("SELECT 1")})
		case strings.Contains(query.String, "SELECT"):
			b.Send(&pgproto3.CommandComplete{CommandTag: []byte("SELECT 0")})
		default:
			b.Send(&pgproto3.ErrorResponse{
				Severity: "ERROR", SeverityUnlocalized: "ERROR", Code: "42601",
				Message: `syntax error at or near "IDENTIFY_SYSTEM"`,
			})
		}
	}
}

// TestUnusableSettings has servers answer as PgBouncer 1.18 and others did. Waiting does not help.
func TestUnusableSettings(t *testing.T) {
	t.Parallel()
	fatal := func(code, message, routine string) *pgproto3.ErrorResponse {
		return &pgproto3.ErrorResponse{
			Severity: "FATAL", SeverityUnlocalized: "FATAL", Code: code, Message: message, Routine: routine,
		}
	}
	unrecognized := func(parameter string) *pgproto3.ErrorResponse {
		return fatal("42704", fmt.Sprintf("unrecognized configuration parameter %q", parameter), "")
	}
	for _, c := range []struct {
		name, version string
		refusal       *pgproto3.ErrorResponse
		says          string // empty: no fault of the settings
	}{
		{"PgBouncer", "", fatal("08P01", "unsupported startup parameter: replication", ""), "pooler"},
		{"PgBouncer of an inspection", "", fatal("08P01", "unsupported startup parameter: bytea_output", ""), "pooler"},
		{"a pooler that takes it for SQL", "16.4", nil, "pooler"},
		{
			"RDS Proxy", "", fatal("0A000",
				"Feature not supported: RDS Proxy currently doesn't support streaming replication mode", ""), "pooler",
		},
		{"PgBouncer that ignores what it does not know", ignoring, nil, "client_min_messages"},
		{"PgBouncer that has no such database", "", fatal("08P01", "bouncer config error", ""), "pooler"},
		{"Postgres 10, of what it knows least", "", unrecognized("jit"), "needs 14 or later"},
		{
			"Postgres 9.4 in French", "",
			fatal("42704", `paramètre de configuration « row_security » non reconnu`, ""), "needs 14 or later",
		},
		{"an unknown parameter that is almost ours", "", unrecognized("jit.foo"), `refuses a parameter`},
		{"CockroachDB", "13.0.0", nil, "needs 14 or later"},
		{"a version of development", "14devel", nil, "pooler"},
		{"a beta version", "17beta1", nil, "pooler"},
		{"no version", "", nil, "pooler"},
		{"an odd version", "Postgres of somebody", nil, "pooler"},
		{"Postgres 13", "", unrecognized("idle_session_timeout"), "needs 14 or later"},
		{"Postgres 13 behind something", "13.14 (Debian 13.14-1)", nil, "needs 14 or later"},
		{"an unknown parameter", "", unrecognized("foo"), `"foo"`},
		{"a value", "", fatal("22023", `invalid value for parameter "work_mem": "x"`, ""), `"work_mem"`},
		{
			"one for superusers", "", fatal("42501", `permission denied to set parameter "session_replication_role"`,
				"set_config_with_handle"), `"session_replication_role"`,
		},
		{"a right", "", fatal("42501", "must be superuser or replication role", "InitPostgres"), ""},
		{"a start", "", fatal("57P03", "the database system is starting up", ""), ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			_, err := Connect(t.Context(), answering(t, c.version, c.refusal))
			var settings *SettingsError
			found := errors.As(err, &settings)
			if found != (c.says != "") || found && (Transient(err) || !strings.Contains(err.Error(), c.says)) {
				t.Errorf("Connect = %v, transient %t; want it to say %q", err, Transient(err), c.says)
			}
			if c.refusal == nil && c.version != ignoring {
				return
			}
			_, err = Inspect(t.Context(), answering(t, c.version, c.refusal))
			if errors.As(err, &settings) != (c.says != "") {
				t.Errorf("Inspect = %v", err)
			}
		})
	}
}

// TestMajorOf reads what servers report as their server_version.
func TestMajorOf(t *testing.T) {
	t.Parallel()
	for version, want := range map[string]int{
		"18.1": 18, "17.0": 17, "16.3 (Debian 16.3-1.pgdg120+1)": 16, "14devel": 14, "17beta1": 17, "18rc1": 18,
		"13.14": 13, "9.6.24": 9, "15.4.0": 15, "11.2-YB-2.25.0.0-b0": 11,
		"": 0, "PostgreSQL 16": 0, "99999999999999999999": 0,
	} {
		if got := majorOf(version); got != want {
			t.Errorf("%q is of major version %d, want %d", version, got, want)
		}
	}
}
