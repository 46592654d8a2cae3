package integration

import (
	"encoding/binary"
	"errors"
	"io"
	"net"
	"net/url"
	"strings"
	"sync"
	"testing"

	"github.com/jackc/pgx/v5/pgproto3"
)

// TestPoolers: behind what is no Postgres, but passes sessions on, init makes nothing, and no
// command waits.
func TestPoolers(t *testing.T) {
	t.Parallel()
	env := Setup(t, Needs{Postgres: 18, Kafka: Faulty})
	// Run returns when the parallel subtests have ended.
	t.Run("before init", func(t *testing.T) { throughPoolers(t, env, "init", "status") })
	if made := env.Value(t, "SELECT count(*)::text FROM pg_class WHERE relname = 'outbox'") +
		env.Value(t, "SELECT count(*)::text FROM pg_publication") +
		env.Value(t, "SELECT count(*)::text FROM pg_replication_slots WHERE database = current_database()"); made != "000" {
		t.Errorf("init made tables, publications, slots: %s", made)
	}
	env.Init(t)
	t.Run("behind init", func(t *testing.T) { throughPoolers(t, env, "init", "status", "run") })
}

func throughPoolers(t *testing.T, env *Env, commands ...string) {
	t.Helper()
	for name, keeps := range map[string]func(parameter string) bool{
		"all but replication": func(parameter string) bool { return parameter != "replication" },
		"no settings": func(parameter string) bool {
			return parameter == "user" || parameter == "database" || parameter == "replication"
		},
		"user, database alone": func(parameter string) bool { return parameter == "user" || parameter == "database" },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			through := "WALPOST_POSTGRES_URL=" + startPooler(t, env.URL(), keeps)
			for _, command := range commands {
				code, output := env.Walpost(t, []string{
					through, "WALPOST_HTTP_ADDR=127.0.0.1:0",
					"WALPOST_KAFKA_BROKERS=127.0.0.1:1",
				}, command)
				if code != 2 || !strings.Contains(output, "connection pooler") ||
					!strings.Contains(output, "direct address") {
					t.Errorf("%s through a pooler ended with %d:\n%s", command, code, output)
				}
			}
		})
	}
}

// startPooler is a line to a Postgres that passes only some parameters of a session on. It returns
// its address as a URL.
func startPooler(t testing.TB, server string, keeps func(parameter string) bool) string {
	t.Helper()
	address, err := url.Parse(server)
	if err != nil {
		t.Fatal(err)
	}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var group sync.WaitGroup
	group.Go(func() {
		for {
			client, err := listener.Accept()
			if err != nil {
				return
			}
			group.Go(func() { pool(client, address.Host, keeps) })
		}
	})
	t.Cleanup(func() { _ = listener.Close(); group.Wait() })
	return strings.Replace(server, address.Host, listener.Addr().String(), 1)
}

func pool(client net.Conn, server string, keeps func(parameter string) bool) {
	defer client.Close() //nolint:errcheck // nobody reads it any more
	startup, err := readStartup(client)
	if err != nil {
		return
	}
	for name := range startup.Parameters {
		if !keeps(name) {
			delete(startup.Parameters, name)
		}
	}
	first, err := startup.Encode(nil)
	if err != nil {
		return
	}
	upstream, err := net.Dial("tcp", server)
	if err != nil {
		return
	}
	defer upstream.Close() //nolint:errcheck // nobody reads it any more
	if _, err := upstream.Write(first); err != nil {
		return
	}
	go func() {
		_, _ = io.Copy(upstream, client)
		_ = upstream.Close()
	}()
	_, _ = io.Copy(client, upstream)
}

// readStartup refuses TLS, and returns the startup message of a session. A request to cancel is an
// error.
func readStartup(client net.Conn) (*pgproto3.StartupMessage, error) {
	for {
		var length [4]byte
		if _, err := io.ReadFull(client, length[:]); err != nil {
			return nil, err
		}
		n := binary.BigEndian.Uint32(length[:])
		if n < 8 || n > 10000 {
			return nil, errors.New("no startup message")
		}
		body := make([]byte, n-4)
		if _, err := io.ReadFull(client, body); err != nil {
			return nil, err
		}
		if n == 8 { // SSLRequest or GSSENCRequest
			if _, err := client.Write([]byte("N")); err != nil {
				return nil, err
			}
			continue
		}
		startup := &pgproto3.StartupMessage{}
		return startup, startup.Decode(body)
	}
}
