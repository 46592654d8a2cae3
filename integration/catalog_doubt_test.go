package integration

import (
	"fmt"
	"regexp"
	"strings"
	"testing"
	"time"
)

// TestPublicationDropped drops the publication under a running relay, and commits an event that the
// stream then lacks.
func TestPublicationDropped(t *testing.T) {
	t.Parallel()
	onBoth(t, func(t *testing.T, major int) {
		for _, anew := range []bool{false, true} { // is it made again before anybody runs init
			t.Run(fmt.Sprint("made anew ", anew), func(t *testing.T) { publicationDropped(t, major, anew) })
		}
	})
}

func publicationDropped(t *testing.T, major int, anew bool) {
	t.Parallel()
	env := Setup(t, Needs{Postgres: major})
	relay := running(t, env)
	env.Exec(t, "DROP PUBLICATION walpost")
	doubt := walEnd(t, env)
	insert(t, env, "order", "lost", 10)
	halts(t, relay, `publication \"walpost\"`)
	frozen(t, env, doubt)
	if n := len(awaitRecords(t, env, env.Prefix+"order", 1)); n != 1 {
		t.Errorf("%d records, want the one before", n)
	}
	halts(t, env.Run(t), `publication \"walpost\"`) // and again, until somebody acts

	// The way out that the hint names, with events that the slot had not read yet.
	insert(t, env, "order", "lost", 5)
	if code, output := env.Walpost(t, nil, "init"); code != 1 ||
		!strings.Contains(output, "older than publication") || !strings.Contains(output, "nothing was changed") {
		t.Errorf("init without the flag: exit code %d:\n%s", code, output)
	}
	if anew {
		env.Exec(t, "CREATE PUBLICATION walpost FOR TABLE outbox WITH (publish = 'insert')")
		halts(t, env.Run(t), "publication")
	}
	env.Init(t, "--accept-gap")
	again := env.Run(t)
	again.Ready(t, 30*time.Second)
	env.Exec(t, `WITH gone AS (DELETE FROM outbox WHERE aggregateid = 'lost' RETURNING *)
		INSERT INTO outbox (id, aggregatetype, aggregateid, type, payload) SELECT id, aggregatetype, 'found', type, payload FROM gone`)
	if n := len(awaitRecords(t, env, env.Prefix+"order", 16)); n != 16 {
		t.Errorf("%d records, want the one before and the 15 that were missing", n)
	}
	again.Stop(t)
}

// TestTableLeavesThePublication takes the table out of the publication, for good and for a moment.
func TestTableLeavesThePublication(t *testing.T) {
	t.Parallel()
	onBoth(t, func(t *testing.T, major int) {
		env := Setup(t, Needs{Postgres: major})
		relay := running(t, env)
		env.Exec(t, "ALTER PUBLICATION walpost DROP TABLE outbox")
		doubt := walEnd(t, env)
		insert(t, env, "order", "lost", 10)
		halts(t, relay, "is not in publication", "ADD TABLE", "init --accept-gap")
		frozen(t, env, doubt)
		env.Exec(t, "ALTER PUBLICATION walpost ADD TABLE outbox")
		// A supervisor starts it again: no reason to go on.
		halts(t, env.Run(t), "was altered since", "init --accept-gap")
		frozen(t, env, doubt)

		relay = accepted(t, env, 10)
		env.Exec(t, "ALTER PUBLICATION walpost DROP TABLE outbox")
		doubt = walEnd(t, env)
		insert(t, env, "order", "lost", 10)
		env.Exec(t, "ALTER PUBLICATION walpost ADD TABLE outbox")
		halts(t, relay, "was altered since")
		frozen(t, env, doubt)
		accepted(t, env, 20).Stop(t)
	})
}

// TestPublicationAlteredBetweenInspections takes the table out of the publication and back: the
// relay is killed, or stopped in order, before its next inspection, or does not run at all. The
// next start must not go on as if nothing had happened.
func TestPublicationAlteredBetweenInspections(t *testing.T) {
	alter := func(t *testing.T, env *Env) {
		env.Exec(t, "ALTER PUBLICATION walpost DROP TABLE outbox")
		insert(t, env, "order", "lost", 10)
		env.Exec(t, "ALTER PUBLICATION walpost ADD TABLE outbox")
	}
	for name, play := range map[string]func(t *testing.T, env *Env, relay *Relay){
		"killed": func(t *testing.T, env *Env, relay *Relay) {
			alter(t, env)
			// A position past the doubt is stored, and the next inspection is to come.
			time.Sleep(300 * time.Millisecond)
			relay.Kill()
		},
		"killed with an event behind": func(t *testing.T, env *Env, relay *Relay) {
			alter(t, env)
			env.Exec(t, `DELETE FROM outbox WHERE aggregateid = 'k'`)
			insert(t, env, "other", "k", 1)
			awaitRecords(t, env, env.Prefix+"other", 1)
			relay.Kill()
		},
		"stopped": func(t *testing.T, env *Env, relay *Relay) {
			alter(t, env)
			relay.Term()
			relay.Wait(t, 30*time.Second) // 0 if it has not inspected, 3 if it has
		},
		"not running": func(t *testing.T, env *Env, relay *Relay) {
			relay.Stop(t)
			alter(t, env)
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			env := Setup(t, Needs{Postgres: 16})
			relay := running(t, env)
			// The inspection for the event is over, and the next one is ten seconds away. It may
			// find the alteration nonetheless: then the relay stops by itself.
			awaitConfirmed(t, env, awaitRecords(t, env, env.Prefix+"order", 1)[0])
			play(t, env, relay)
			halts(t, env.Run(t), "was altered since", "init --accept-gap")
			accepted(t, env, 10).Stop(t)
		})
	}
}

// TestPublicationStopsPublishing turns inserts off and adds a row filter.
func TestPublicationStopsPublishing(t *testing.T) {
	t.Parallel()
	env := Setup(t, Needs{Postgres: 18})
	relay := running(t, env)
	env.Exec(t, "ALTER PUBLICATION walpost SET (publish = 'update')")
	halts(t, relay, "does not publish inserts")
	env.Exec(t, "ALTER PUBLICATION walpost SET (publish = 'insert')")
	env.Init(t, "--accept-gap")
	relay = env.Run(t)
	relay.Ready(t, 30*time.Second)
	env.Exec(t, "ALTER PUBLICATION walpost SET TABLE outbox WHERE (aggregatetype = 'x')")
	halts(t, relay, "filters the rows")
}

// TestSlotTrouble drops, moves, re-creates and invalidates the slot.
func TestSlotTrouble(t *testing.T) {
	t.Parallel()
	onBoth(t, func(t *testing.T, major int) {
		env := Setup(t, Needs{
			Postgres: major, OwnPostgres: true,
			Settings: map[string]string{
				"max_slot_wal_keep_size": "16MB", "wal_keep_size": "0",
				"max_wal_size": "32MB", "min_wal_size": "32MB",
			},
		})
		relay := running(t, env)
		relay.Stop(t)
		stored := storedPosition(t, env)

		// Moved by hand, past an event.
		insert(t, env, "order", "k", 1)
		env.Exec(t, "SELECT pg_replication_slot_advance($1, pg_current_wal_lsn())", env.Slot)
		moved := confirmedLSN(t, env)
		halts(t, env.Run(t), "the slot was moved or re-created", stored.End.String(), moved.String(),
			"init --accept-gap")
		if confirmed := confirmedLSN(t, env); confirmed != moved {
			t.Errorf("the slot went from %s to %s", moved, confirmed)
		}
		output := env.Init(t, "--accept-gap")
		if !strings.Contains(output, moved.String()) {
			t.Errorf("init --accept-gap says:\n%s", output)
		}
		relay = env.Run(t)
		relay.Ready(t, 30*time.Second)

		// Dropped under the relay.
		env.Exec(t, "SELECT pg_terminate_backend(active_pid, 5000) FROM pg_replication_slots WHERE slot_name = $1", env.Slot)
		dropSlot(t, env)
		halts(t, relay, "does not exist")

		// Re-created.
		env.Init(t)
		halts(t, env.Run(t), "the slot was moved or re-created")
		env.Init(t, "--accept-gap")
		relay = env.Run(t)
		relay.Ready(t, 30*time.Second)
		relay.Stop(t)

		// Invalidated: more WAL than the slot may keep.
		for range 8 {
			env.Exec(t, "SELECT pg_logical_emit_message(false, 'noise', repeat('x', 16000000))")
			env.Exec(t, "CHECKPOINT")
		}
		if status := env.Value(t, "SELECT wal_status FROM pg_replication_slots WHERE slot_name = $1", env.Slot); status != "lost" {
			t.Fatalf("the slot is %s: this test has not invalidated it", status)
		}
		halts(t, env.Run(t), "was invalidated", "pg_drop_replication_slot")
	})
}

func dropSlot(t testing.TB, env *Env) {
	t.Helper()
	Eventually(t, 10*time.Second, "the slot to be dropped", func() bool {
		// The relay comes back within a moment: whoever is first.
		env.Exec(t, `DO $$ BEGIN
			PERFORM pg_terminate_backend(active_pid, 1000) FROM pg_replication_slots WHERE slot_name = '`+env.Slot+`' AND active;
			PERFORM pg_drop_replication_slot('`+env.Slot+`');
		EXCEPTION WHEN object_in_use OR undefined_object THEN NULL; END $$`)
		return env.Value(t, "SELECT count(*) FROM pg_replication_slots WHERE slot_name = $1", env.Slot) == "0"
	})
}

// TestColumnsChange adds a column, which does no harm, and renames a required one, which stops the
// relay.
func TestColumnsChange(t *testing.T) {
	t.Parallel()
	onBoth(t, func(t *testing.T, major int) {
		env := Setup(t, Needs{Postgres: major})
		relay := running(t, env)
		env.Exec(t, "ALTER TABLE outbox ADD COLUMN tenant text DEFAULT 'x'")
		insert(t, env, "order", "k", 1)
		awaitRecords(t, env, env.Prefix+"order", 2)
		env.Exec(t, "ALTER TABLE outbox RENAME COLUMN payload TO body")
		env.Exec(t, "INSERT INTO outbox (id, aggregatetype, aggregateid, body) VALUES (gen_random_uuid(), 'order', 'k', '{}')")
		halts(t, relay, `\"payload\"`, "is missing", "WALPOST_COLUMNS")
		found := regexp.MustCompile(`with commit LSN ([0-9A-F]+/[0-9A-F]+)`).FindStringSubmatch(relay.Log())
		if found == nil {
			t.Fatalf("the log names no commit LSN:\n%s", lastLines(relay.Log(), 3))
		}
		commit := parseLSN(t, found[1])
		if confirmed, stored := confirmedLSN(t, env), storedPosition(t, env).End; confirmed > commit ||
			stored > commit {
			t.Errorf("confirmed %s, stored %s, past the event that commits at %s", confirmed, stored, commit)
		}
		relay = env.Run(t, "WALPOST_COLUMNS=payload=body")
		relay.Ready(t, 30*time.Second)
		awaitRecords(t, env, env.Prefix+"order", 3)
		relay.Stop(t)
	})
}

// TestOlderSlotIsHeard: Postgres 18 tells of rows that it skips, since the slot is older than the
// publication, in a warning alone. Settings that keep warnings from clients do not keep it from the
// relay.
func TestOlderSlotIsHeard(t *testing.T) {
	t.Parallel()
	onBoth(t, func(t *testing.T, major int) {
		t.Parallel()
		env := Setup(t, Needs{Postgres: major})
		env.Exec(t, "CREATE TABLE outbox (id uuid NOT NULL DEFAULT gen_random_uuid(), aggregatetype text NOT NULL, aggregateid text NOT NULL, type text, payload jsonb)")
		env.Exec(t, "SELECT pg_create_logical_replication_slot($1, 'pgoutput')", env.Slot)
		insert(t, env, "order", "before", 3)
		before := confirmedLSN(t, env)
		env.Exec(t, "CREATE PUBLICATION walpost FOR TABLE outbox WITH (publish = 'insert')")
		env.Exec(t, "ALTER DATABASE "+env.Database+" SET client_min_messages = error")
		insert(t, env, "order", "behind", 1)
		halts(t, env.Run(t), `publication \"walpost\"`, "walpost init --accept-gap")
		frozen(t, env, before)
		env.Init(t, "--accept-gap")
		relay := env.Run(t)
		// Without a stored position it is not known to be younger: the operator moves the slot.
		halts(t, relay, `publication \"walpost\"`, "docs/OPERATIONS.md#a-gap")
		env.Exec(t, "SELECT pg_replication_slot_advance($1, pg_current_wal_lsn())", env.Slot)
		env.Init(t, "--accept-gap")
		relay = env.Run(t)
		relay.Ready(t, 30*time.Second)
		insert(t, env, "order", "k", 2)
		if n := len(awaitRecords(t, env, env.Prefix+"order", 2)); n != 2 {
			t.Errorf("%d records, want 2", n)
		}
		relay.Stop(t)
	})
}
