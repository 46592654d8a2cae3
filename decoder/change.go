package decoder

// Kind says what a message was.
type Kind uint8

// The kinds of a Change. Other is everything without an event: other messages,
// and row changes that are not an insert into one of the configured tables.
// Moved is the insert of a row that moved to another partition. It is no event
// either, but the log should tell.
const (
	Other Kind = iota
	Begin
	Commit
	Insert
	Moved
)

// Change is what one message said.
type Change struct {
	// Event is the row of an Insert, or the id, table and index of a row that
	// was Moved; nil otherwise. It is borrowed: it and all its bytes are valid
	// until the next Decode.
	Event *Event
	// CommitLSN is set by Begin and Commit: the start of the transaction's
	// commit record, the same in both.
	CommitLSN uint64
	// EndLSN is set by Commit: the position after the commit record, the
	// only one that may be confirmed for the transaction.
	EndLSN uint64
	// CommitTime is set by Begin and Commit, by the server's clock, in
	// microseconds since 2000-01-01 00:00 UTC.
	CommitTime int64
	// XID is set by Begin.
	XID uint32
	// Kind tells which of the fields are set.
	Kind Kind
}

// Event is one row of an outbox table. A nil slice is SQL NULL, or a column
// that the table does not have; an empty value is empty and not nil. ID, Key
// and AggregateType are never nil, and Key is never empty.
type Event struct {
	// ID, Key (column aggregateid), AggregateType and Type are the text of
	// their columns, as Postgres would print it.
	ID, Key, AggregateType, Type []byte
	// Payload is what is to be published, byte for byte. Nil is a tombstone.
	Payload []byte
	// Headers is the JSON text of the column headers. It is not checked here.
	Headers []byte
	// Extra holds the text of the columns of Config.Extra, in that order.
	Extra [][]byte
	// Schema and Table name the table the row was inserted into. For a
	// partitioned table published via its root, that is the root.
	Schema, Table string
	// Index numbers the row changes of the transaction from 0. Every Insert,
	// Update and Delete message counts, of whatever table; Truncate does not.
	Index uint32
	// HasType tells that the table has the column type, so that a nil Type is
	// a NULL.
	HasType bool
}
