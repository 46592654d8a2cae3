package cdc

import (
	"sync/atomic"
	"time"
)

// Walsender is the process that reads the slot, as pg_stat_activity shows it.
type Walsender struct {
	PID int `json:"pid"`
	// WaitType is its wait_event_type; empty = it runs. Where its client is what it waits for, the
	// type is Client (the socket is full, no WAL yet), and Activity in its main loop.
	WaitType string `json:"wait_event_type"`
	// Visible says that the role may see what it waits for.
	Visible bool `json:"visible"`
	// Progress changes with every transaction that it has decoded.
	Progress string `json:"progress"`
}

// walsenderSQL asks for it. Its sent_lsn is seen by members of pg_read_all_stats alone; the number
// of decoded transactions by everybody.
const walsenderSQL = `
SELECT jsonb_build_object('pid', a.pid, 'wait_event_type', coalesce(a.wait_event_type, ''), 'visible', a.state IS NOT NULL,
  'progress', concat_ws(' ', r.sent_lsn, t.total_txns, t.stream_count))
  FROM pg_replication_slots s JOIN pg_stat_activity a ON a.pid = s.active_pid
  LEFT JOIN pg_stat_replication r ON r.pid = a.pid LEFT JOIN pg_stat_replication_slots t ON t.slot_name = s.slot_name
  WHERE s.slot_name = $slot;
`

// atWork reports whether the process does anything but wait for its client.
func (w *Walsender) atWork() bool {
	return w != nil && w.Visible && w.WaitType != "Activity" && w.WaitType != "Client"
}

// workload tells a walsender that is busy from a link that is dead. While it decodes a large
// transaction that the publication leaves out, a walsender sends nothing and reads none of our
// messages: before Postgres 16 for as long as it takes, later for half of wal_sender_timeout.
//
// One inspection proves little: a walsender whose client is gone runs now and then as well. So it
// counts as busy if two inspections in a row find it at work on the same transaction, and none has
// found it idle since it was asked for a reply. An idle one would have answered.
type workload struct {
	start time.Time // of the stream; moments are counted from it

	// Of the goroutine that reads the stream.
	data uint64 // messages of data that it has read

	// Written by that goroutine, at each status or so.
	heard  atomic.Int64 // when the server was last heard
	asked  atomic.Int64 // when it was first asked for a reply since; 0 = it was not
	before atomic.Int64 // when data last came

	// Written by the goroutine that inspects.
	seen  atomic.Int64 // when the walsender was last known to be busy
	since atomic.Int64 // since when each inspection has found it at work; 0 = the last has not

	// Of the goroutine that inspects.
	last Walsender // at work, as of the inspection before
	deaf int64     // the heard since when it was found idle and had not answered; -1 = it was not
}

// Inspected takes an inspection as a sign of life: a walsender that was found at work is not
// silent. The goroutine that inspects calls it.
func (s *Stream) Inspected(view View) {
	w, l := view.Walsender, &s.work
	now, heard, asked := int64(time.Since(s.work.start)), l.heard.Load(), l.asked.Load()
	if !w.atWork() || w.PID != int(s.PID()) {
		if asked != 0 && now-asked > int64(s.interval/2) {
			l.deaf = heard
		}
		l.since.Store(0)
		l.last = Walsender{}
		return
	}
	same := w.PID == l.last.PID && w.Progress == l.last.Progress
	if same && l.deaf != heard {
		l.seen.Store(now)
	}
	if !same {
		l.since.Store(now)
	}
	l.last = *w
}

// quiet is for how long the server has given no sign of life. The goroutine that reads calls it,
// before each read.
func (s *Stream) quiet(now time.Time) time.Duration {
	if !s.serviced.IsZero() && now.Sub(s.serviced) > s.silence/2 {
		s.heard = now // it was this process that was stopped: what the server said has yet to be read
	}
	s.serviced = now
	if heard := int64(s.heard.Sub(s.work.start)); heard != s.work.heard.Load() {
		s.work.asked.Store(0)
		s.work.heard.Store(heard)
	}
	if s.data != s.work.data {
		s.data = s.work.data
		s.work.before.Store(int64(now.Sub(s.work.start)))
	}
	return min(now.Sub(s.heard), now.Sub(s.work.start)-time.Duration(s.work.seen.Load()))
}

// Decoding is for how long Postgres has been decoding one transaction without sending any of it,
// as far as the inspections tell; zero = it is not. Any goroutine may ask.
func (s *Stream) Decoding() time.Duration {
	since := s.work.since.Load()
	if since == 0 {
		return 0
	}
	return max(time.Since(s.work.start)-time.Duration(max(since, s.work.before.Load())), 0)
}
