package integration

import (
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
	"time"
)

// TestLinkCut cuts every connection between relay and Postgres after a random number of bytes,
// under load: in the middle of a row, of an inspection, or of a handshake.
func TestLinkCut(t *testing.T) {
	t.Parallel()
	cutTheLinks(t, 10, 3, 2*time.Minute)
}

// TestLinkCutForLong is the same for some minutes.
func TestLinkCutForLong(t *testing.T) {
	long(t)
	cutTheLinks(t, 120, 30, 15*time.Minute)
}

// cutTheLinks goes on until so many connections were cut, and so many streams came after the first.
func cutTheLinks(t *testing.T, cuts, streams int, limit time.Duration) {
	all := scenes(t, Needs{}, WorkloadOptions{Rate: 500}, func(p *Proxy) {
		p.CutAfter(func() int64 {
			if rand.IntN(4) == 0 {
				return rand.Int64N(12_000) // of a session's beginning
			}
			return 20_000 + rand.Int64N(1_000_000)
		})
	})
	await(t, all, limit, fmt.Sprintf("%d cuts and %d streams after the first", cuts, streams), func(s scene) bool {
		return s.proxy.Cuts() >= cuts && reconnects(t, s.relay) >= streams
	})
	for _, s := range all {
		s.proxy.CutAfter(nil)
		t.Logf("%s: %d cuts, %d reconnects", s.name, s.proxy.Cuts(), reconnects(t, s.relay))
	}
	allWhole(t, all)
}

// TestHalfOpenLink lets all packets vanish in both directions, and no end notices but by the
// silence: neither FIN nor RST. The relay is back within a minute.
func TestHalfOpenLink(t *testing.T) {
	t.Parallel()
	all := scenes(t, Needs{Settings: map[string]string{"wal_sender_timeout": "10s"}},
		WorkloadOptions{Rate: 100}, wellShaped)
	for _, s := range all {
		if s.proxy.Silence() == 0 {
			t.Fatalf("%s: there was no connection to silence", s.name)
		}
	}
	await(t, all, time.Minute, "another stream", func(s scene) bool { return reconnects(t, s.relay) > 0 && s.relay.IsReady() })
	allWhole(t, all)
}

// TestNarrowLink has a line of 64 KiB a second, and an event that takes longer on it than the
// walsender waits for a word from the relay.
func TestNarrowLink(t *testing.T) {
	t.Parallel()
	slowLinks(t, func(p *Proxy) { p.Shape(0, 64<<10) })
}

// TestFarLink has a line with half a second in each direction.
func TestFarLink(t *testing.T) {
	t.Parallel()
	slowLinks(t, func(p *Proxy) { p.Shape(500*time.Millisecond, 0) })
}

// slowLinks publishes over slow lines, on which the walsender never gives the relay up.
func slowLinks(t *testing.T, shape func(*Proxy)) {
	all := scenes(t, Needs{Settings: map[string]string{"wal_sender_timeout": "10s"}},
		WorkloadOptions{Rate: 40, NoLarge: true, Writers: 2}, shape)
	for _, s := range all {
		s.env.Exec(t, `INSERT INTO outbox (id, aggregatetype, aggregateid, type, payload, headers) SELECT gen_random_uuid(), 'large', 'k', 'Happened',
			to_jsonb((SELECT string_agg(md5(i::text), '') FROM generate_series(1, 28000) i)), '{"seq": "1"}'`) // 900 KB: 14 s at 64 KiB
	}
	await(t, all, 2*time.Minute, "the large event", func(s scene) bool { return published(t, s.env, s.relay, "large") == 1 })
	goal := all[0].work.Committed() + 400 // ten seconds more: longer than the walsender waits
	for _, s := range all {
		s.work.WaitCommitted(t, goal)
		if n := reconnects(t, s.relay); n != 0 {
			t.Errorf("%s: %d reconnects on a slow line", s.name, n)
		}
		if log := s.env.Server.LogTail(); strings.Contains(log, "replication timeout") {
			t.Errorf("%s: the walsender gave the relay up", s.name)
		}
	}
	allWhole(t, all)
}
