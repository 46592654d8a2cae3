package main

import (
	"net"
	"strings"
	"testing"
)

// runAgainstNobody starts the built relay with servers that are away.
func runAgainstNobody(t *testing.T, args ...string) *process {
	t.Helper()
	return start(t, append([]string{"run", "--postgres-url=postgres://walpost@" + nobody + "/x?sslmode=disable", "--kafka-brokers=" + nobody}, args...)...)
}

// takenAddress is one that somebody else listens on.
func takenAddress(t *testing.T) string {
	t.Helper()
	taken, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = taken.Close() }) // nobody connected
	return taken.Addr().String()
}

// It is not parallel, because its environment is that of the process.
func TestRunNamesUnknownVariables(t *testing.T) {
	t.Setenv("WALPOST_KAFKA_BROKER", "hunter2")
	t.Setenv("WALPOST_SERVICE_HOST", "10.0.0.1")
	p := runAgainstNobody(t, "--http-addr", takenAddress(t)) // so that it ends by itself
	p.end(exitFailed)
	log := p.stderr.String()
	wantAll(t, log, `"level":"warn","variables":\["WALPOST_KAFKA_BROKER \(did you mean WALPOST_KAFKA_BROKERS\?\)"\]`)
	if strings.Contains(log, "hunter2") || strings.Count(log, "are not settings") != 1 {
		t.Errorf("the value is repeated, or the warning: %s", log)
	}
}

func TestRunOnATakenAddress(t *testing.T) {
	t.Parallel()
	addr := takenAddress(t)
	p := runAgainstNobody(t, "--http-addr", addr)
	p.end(exitFailed)
	wantAll(t, p.stderr.String(), `another process, perhaps another walpost, listens on the HTTP address `+addr+`: set WALPOST_HTTP_ADDR`)
}
