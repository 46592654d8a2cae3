package checkpoint

import (
	"fmt"

	"github.com/jackc/pglogrepl"
)

// LSN is a position in the WAL, in bytes.
type LSN = pglogrepl.LSN

// Position says how far the stream of one slot has been published.
type Position struct {
	// End is the flush position to confirm: the end LSN of a transaction or the WAL end of a
	// keepalive. Every transaction that ends at or before it is published. Only this value is
	// right: with the LSN of the commit record Postgres would send the transaction again, with one
	// byte more it would skip a neighbour.
	End LSN
	// Commit and Rows describe the transaction after End that is published in part: the first Rows
	// row changes of the transaction whose commit record starts at Commit. Both are zero if there
	// is none.
	Commit LSN
	Rows   uint32
}

// Before reports whether p has published less than q, on one timeline. Transactions stream in the
// order of their commit records. So a position with rows of one is further than every End up to its
// commit record, even if that End lies behind its own.
func (p Position) Before(q Position) bool {
	a, b := p.last(), q.last()
	switch {
	case a != b:
		return a < b
	case p.Rows != q.Rows:
		return p.Rows < q.Rows
	default:
		return p.End < q.End
	}
}

// last is the LSN of the last row or transaction that was published.
func (p Position) last() LSN {
	if p.Rows == 0 {
		return p.End
	}
	return p.Furthest()
}

// Furthest returns Commit if a transaction is published in part, else End. It decides on which
// timeline the position lies.
func (p Position) Furthest() LSN { return max(p.End, p.Commit) }

// Published reports whether p includes the row change with index row of the transaction that
// commits at commit, in a stream that starts at p.End.
func (p Position) Published(commit LSN, row uint32) bool {
	return commit < p.End || (commit == p.Commit && row < p.Rows)
}

func (p Position) String() string {
	if p.Rows == 0 {
		return p.End.String()
	}
	rows := "rows"
	if p.Rows == 1 {
		rows = "row"
	}
	return fmt.Sprintf("%s and %d %s of the transaction at %s", p.End, p.Rows, rows, p.Commit)
}
