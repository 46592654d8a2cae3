package integration

import (
	"context"
	"os"
	"testing"
	"time"

	"github.com/walpost/walpost/integration/wait"
	"github.com/walpost/walpost/internal/pgserver"
)

func stopPostgres(t testing.TB, env *Env, mode pgserver.StopMode, limit time.Duration) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	deadline := wait.In(limit)
	if err := env.Server.Stop(ctx, mode); err != nil {
		t.Fatal(err)
	}
	t.Logf("Postgres stopped within %s", deadline)
	if deadline.Over() {
		t.Errorf("Postgres took %s to stop, want at most %s", deadline, limit)
	}
}

// reconfigure restarts the only broker with other settings.
func reconfigure(t testing.TB, env *Env, settings map[string]string) {
	t.Helper()
	if err := env.Kafka.Configure(0, settings); err != nil {
		t.Fatal(err)
	}
	env.Kafka.Kill(0)
	if err := env.Kafka.Start(t.Context(), 0); err != nil {
		t.Fatal(err)
	}
}

func awaitInSync(t testing.TB, env *Env) {
	t.Helper()
	if err := env.Kafka.WaitInSync(t.Context()); err != nil {
		t.Fatal(err)
	}
}

// startBroker runs a broker again and waits until it has caught up.
func startBroker(t testing.TB, env *Env, i int) {
	t.Helper()
	if err := env.Kafka.Start(t.Context(), i); err != nil {
		t.Fatal(err)
	}
	awaitInSync(t, env)
}

// askForPassword has the server ask role relay for its password.
func askForPassword(t testing.TB, env *Env) {
	t.Helper()
	file := env.Value(t, "SELECT current_setting('hba_file')")
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(file, append([]byte("host all relay all scram-sha-256\n"), text...), 0o600); err != nil {
		t.Fatal(err)
	}
	env.Exec(t, "SELECT pg_reload_conf()")
}
