package cdc

import (
	"fmt"
	"time"

	"github.com/jackc/pgx/v5/pgconn"
)

// awaitsStandbys is the function of Postgres that warns while it sends nothing because a standby of
// synchronized_standby_slots is away. We tell the warning by its function: its message is in the
// server's language, and others have its code, too.
const awaitsStandbys = "StandbySlotsHaveCaughtup"

// standbyNoticeEvery is how often the log repeats that the server waits: the server itself says so
// many times a second.
const standbyNoticeEvery = time.Minute

// notice keeps the first warning that raises doubt.
func (c *Conn) notice(n *pgconn.Notice) {
	if c.raisesDoubt(n) {
		c.warning.CompareAndSwap(nil, n)
	}
}

// raisesDoubt reports whether rows may be missing in the stream after what the server said. A
// server that waits for a standby says the opposite: it sends nothing, leaves nothing out, and
// continues by itself.
func (c *Conn) raisesDoubt(n *pgconn.Notice) bool {
	if n.SeverityUnlocalized != "WARNING" {
		return false
	}
	if n.Routine != awaitsStandbys {
		return true
	}
	if now := time.Now(); now.Sub(c.standbyNotice) >= standbyNoticeEvery {
		c.standbyNotice = now
		c.cfg.Log.Warn().Str("slot", c.cfg.Slot).Str("warning", n.Message).Str("hint", n.Hint).
			Msg("Postgres sends no events until its standbys have them")
	}
	return false
}

// warningError makes a warning on the stream a reason to stop: newer servers skip rows of a
// publication that they cannot load, and report that only in a warning.
func (c Config) warningError(n *pgconn.Notice) error {
	warning := &pgconn.PgError{Severity: "WARNING", Code: n.Code, Message: n.Message}
	if n.Code == "55000" {
		return c.publicationMissing(warning)
	}
	return &StopError{
		What: fmt.Sprintf("Postgres warned on the stream of slot %q, so events may be missing in it", c.Slot),
		Hint: "find this warning in the log of Postgres and remove its cause: docs/OPERATIONS.md#rows-left-out. " +
			"Nothing was confirmed past it",
		Gap: true,
		Err: warning,
	}
}
