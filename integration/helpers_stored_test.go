package integration

import (
	"fmt"
	"testing"
	"time"

	"github.com/rs/zerolog"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/walpost/walpost/checkpoint"
)

// storedPosition reads the relay's own record of how far it is.
func storedPosition(t testing.TB, env *Env) checkpoint.State {
	t.Helper()
	source := env.Value(t, "SELECT system_identifier::text FROM pg_control_system()") + "/" + env.Slot
	store, err := checkpoint.NewStore(append([]kgo.Opt{kgo.SeedBrokers(env.Brokers...)}, env.Login...),
		env.StateTopic, source, zerolog.Nop())
	if err != nil {
		t.Fatal(err)
	}
	defer store.Close()
	// No wait for the transaction that a killed relay left open: it is aborted.
	state, stored, err := store.LoadCommitted(t.Context())
	if err != nil || !stored {
		t.Fatalf("no stored position: %v", err)
	}
	return state
}

// confirmedLSN is what the slot says of itself.
func confirmedLSN(t testing.TB, env *Env) checkpoint.LSN {
	t.Helper()
	return parseLSN(t, env.Value(t, "SELECT confirmed_flush_lsn::text FROM pg_replication_slots WHERE slot_name = $1", env.Slot))
}

// commitOf is the commit LSN of the transaction of an event.
func commitOf(t testing.TB, r *kgo.Record) checkpoint.LSN {
	t.Helper()
	var timeline, row uint32
	var commit uint64
	if _, err := fmt.Sscanf(headerValue(r, "pos"), "%X-%X-%X", &timeline, &commit, &row); err != nil {
		t.Fatalf("read pos %q: %v", headerValue(r, "pos"), err)
	}
	return checkpoint.LSN(commit)
}

// awaitStored waits until the position behind the transaction of an event is stored.
func awaitStored(t testing.TB, env *Env, r *kgo.Record) {
	t.Helper()
	commit := commitOf(t, r)
	Eventually(t, 20*time.Second, "the position to be stored",
		func() bool { return storedPosition(t, env).End > commit })
}

// awaitConfirmed waits until the position behind the transaction of an event is confirmed to
// Postgres: it is stored, and an inspection came after it.
func awaitConfirmed(t testing.TB, env *Env, r *kgo.Record) {
	t.Helper()
	commit := commitOf(t, r)
	Eventually(t, 20*time.Second, "the position to be confirmed", func() bool { return confirmedLSN(t, env) > commit })
}

func parseLSN(t testing.TB, text string) checkpoint.LSN {
	t.Helper()
	var lsn checkpoint.LSN
	if err := lsn.Scan(text); err != nil {
		t.Fatal(err)
	}
	return lsn
}
