package cdc

import (
	"fmt"
	"time"

	"github.com/jackc/pgx/v5/pgconn"
)

// awaitsStandbys is the function of Postgres that warns while it sends nothing because a standby in synchronized_standby_slots
// is away. The message is in the server's language, and so is its code that of others; the function is neither.
const awaitsStandbys = "StandbySlotsHaveCaughtup"

// sayAgain is how often the log repeats that the server waits: it says so itself many times a second.
const sayAgain = time.Minute

// notice keeps the first warning that may be about the stream.
func (c *Conn) notice(n *pgconn.Notice) {
	if c.raisesDoubt(n) {
		c.warning.CompareAndSwap(nil, n)
	}
}

// raisesDoubt reports whether events may be missing after what the server said. That it waits for a standby says the opposite:
// nothing is sent, nothing is left out, and it goes on by itself.
func (c *Conn) raisesDoubt(n *pgconn.Notice) bool {
	if n.SeverityUnlocalized != "WARNING" {
		return false
	}
	if n.Routine != awaitsStandbys {
		return true
	}
	if now := time.Now(); now.Sub(c.waiting) >= sayAgain {
		c.waiting = now
		c.cfg.Log.Warn().Str("slot", c.cfg.Slot).Str("warning", n.Message).Str("hint", n.Hint).
			Msg("Postgres sends no events until its standbys have them")
	}
	return false
}

// warningError makes a warning on the stream a reason to stop: newer servers skip rows of a publication they cannot
// load, and say so in a warning only.
func (c Config) warningError(n *pgconn.Notice) error {
	warning := &pgconn.PgError{Severity: "WARNING", Code: n.Code, Message: n.Message}
	if n.Code == "55000" {
		return c.publicationMissing(warning)
	}
	return &StopError{
		What: fmt.Sprintf("Postgres warned on the stream of slot %q, so events may be missing in it", c.Slot),
		Hint: "look into the log of Postgres for this warning and mend its cause; nothing was confirmed past it",
		Gap:  true,
		Err:  warning,
	}
}
