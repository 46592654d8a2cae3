package cdc

import (
	"sync/atomic"
	"time"
)

// Walsender is the process that reads the slot, as pg_stat_activity shows it.
type Walsender struct {
	PID int `json:"pid"`
	// WaitType is its wait_event_type; empty = it runs. The type is Client where it waits for its
	// client (the socket is full, no WAL yet), and Activity in its main loop.
	WaitType string `json:"wait_event_type"`
	// Visible says that our role may see what it waits for.
	Visible bool `json:"visible"`
	// Progress changes with every transaction that it has decoded.
	Progress string `json:"progress"`
}

// walsenderSQL asks for it. Only members of pg_read_all_stats see its sent_lsn; everybody sees the
// number of decoded transactions.
const walsenderSQL = `
SELECT jsonb_build_object('pid', a.pid, 'wait_event_type', coalesce(a.wait_event_type, ''),
  'visible', a.state IS NOT NULL, 'progress', concat_ws(' ', r.sent_lsn, t.total_txns, t.stream_count))
  FROM pg_replication_slots s JOIN pg_stat_activity a ON a.pid = s.active_pid
  LEFT JOIN pg_stat_replication r ON r.pid = a.pid
  LEFT JOIN pg_stat_replication_slots t ON t.slot_name = s.slot_name
  WHERE s.slot_name = $slot;
`

// atWork reports whether the process does anything but wait for its client.
func (w *Walsender) atWork() bool {
	return w != nil && w.Visible && w.WaitType != "Activity" && w.WaitType != "Client"
}

// workload tells a busy walsender from a dead link. While a walsender decodes a large transaction
// that the publication leaves out, it sends nothing and reads none of our messages: before
// Postgres 16 for as long as it takes, later for half of wal_sender_timeout.
//
// One inspection proves little: a walsender whose client is gone runs now and then, too. So it
// counts as busy if two inspections in a row find it at work on the same transaction, and no
// inspection has found it idle since we asked it for a reply. An idle one would have answered.
//
// All moments are nanoseconds since start. Two goroutines share them: the reader writes the first
// group of atomics, whoever inspects writes the second, and each reads the other's.
type workload struct {
	start time.Time // of the stream

	gotData  bool         // data came since the last call of quiet; the reader's alone
	heard    atomic.Int64 // when we last heard the server
	asked    atomic.Int64 // when we first asked it for a reply after that; 0 = we did not
	lastData atomic.Int64 // when data last came

	busy  atomic.Int64 // when an inspection last found the walsender busy
	since atomic.Int64 // since when it has been found at work on one transaction; 0 = it is not

	// Owned by whoever inspects.
	last       Walsender // as the inspection before found it; zero if it was not at work
	unanswered int64     // heard, when it was last found idle without an answer; -1 = it never was
}

// NoteInspection takes an inspection as a sign of life: a walsender that was found busy is not
// silent. The goroutine that inspects calls it.
func (s *Stream) NoteInspection(view View) {
	w, l := view.Walsender, &s.work
	now, heard, asked := int64(time.Since(s.work.start)), l.heard.Load(), l.asked.Load()
	if !w.atWork() || w.PID != int(s.PID()) {
		if asked != 0 && now-asked > int64(s.interval/2) {
			l.unanswered = heard
		}
		l.since.Store(0)
		l.last = Walsender{}
		return
	}
	same := w.PID == l.last.PID && w.Progress == l.last.Progress
	if same && l.unanswered != heard {
		l.busy.Store(now)
	}
	if !same {
		l.since.Store(now)
	}
	l.last = *w
}

// quiet returns for how long the server has given no sign of life. The reader calls it before each
// read.
func (s *Stream) quiet(now time.Time) time.Duration {
	// If this process was paused, the server was not silent: what it said has yet to be read.
	if !s.serviced.IsZero() && now.Sub(s.serviced) > s.silence/2 {
		s.heard = now
	}
	s.serviced = now
	if heard := int64(s.heard.Sub(s.work.start)); heard != s.work.heard.Load() {
		s.work.asked.Store(0)
		s.work.heard.Store(heard)
	}
	if s.work.gotData {
		s.work.gotData = false
		s.work.lastData.Store(int64(now.Sub(s.work.start)))
	}
	return min(now.Sub(s.heard), now.Sub(s.work.start)-time.Duration(s.work.busy.Load()))
}

// Decoding returns for how long Postgres has been decoding one transaction without sending any of
// it, as far as inspections tell; zero = it is not. Any goroutine may call it.
func (s *Stream) Decoding() time.Duration {
	since := s.work.since.Load()
	if since == 0 {
		return 0
	}
	return max(time.Since(s.work.start)-time.Duration(max(since, s.work.lastData.Load())), 0)
}
