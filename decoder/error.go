package decoder

import (
	"fmt"
	"strings"
)

// Error is the only type of error that Decode returns. It is permanent: the same
// bytes come again after a reconnect, in the same form. Fields that do not apply
// or are not known are zero.
type Error struct {
	// Schema, Table and Column say where the error is, as the server spells them.
	Schema, Table, Column string
	// CommitLSN is that of the transaction in which it is.
	CommitLSN uint64
	// EventID is the text of the column id, if it could be read.
	EventID string
	// Relation says that the columns of the table are at fault, as they were when the row was
	// inserted: no row of that time can be decoded.
	Relation bool
	// Binary says that it is the binary form of a column that cannot be read. The text form of the
	// same row can be.
	Binary bool
	// Reason says what is wrong. It never holds data of a row.
	Reason string
}

// Error returns the fields in one line.
func (e *Error) Error() string {
	var s strings.Builder
	if e.Table != "" {
		fmt.Fprintf(&s, "table %q.%q: ", e.Schema, e.Table)
	}
	if e.EventID != "" {
		fmt.Fprintf(&s, "event %q: ", e.EventID)
	}
	s.WriteString(e.Reason)
	if e.CommitLSN != 0 {
		fmt.Fprintf(&s, ", in the transaction with commit LSN %X/%X", e.CommitLSN>>32, uint32(e.CommitLSN))
	}
	return s.String()
}

// fault returns an Error with a reason; Decode adds the commit LSN.
func fault(format string, args ...any) *Error {
	return &Error{Reason: fmt.Sprintf(format, args...)}
}
