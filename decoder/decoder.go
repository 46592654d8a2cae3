package decoder

import "maps"

// Table names a table, without quotes, as the catalog spells it.
type Table struct {
	Schema, Name string
}

// Config says which rows are events and where their columns are.
type Config struct {
	// Tables are the outbox tables.
	Tables []Table
	// Own are the OIDs that the tables have now, as far as they are known. A
	// row that was inserted into one of them under another name is an error: it
	// may not be an event, but it must not be skipped in silence.
	Own map[uint32]Table
	// Columns maps the names of the contract (id, aggregatetype, aggregateid,
	// type, payload, headers) to the column names of the tables. A name that
	// is absent is its own column name; names of anything else are ignored. A
	// column named here that a table has had and has no more is an error.
	Columns map[string]string
	// Required names columns of the contract that no table may lack, besides those
	// that an event cannot be made without.
	Required []string
	// Partitioned are the columns of the partition key of the tables that have
	// partitions now, by OID: their rows can move from one to another, which the
	// stream shows as a DELETE and an INSERT. The INSERT is no event; see moved.
	Partitioned map[uint32][]string
	// LocalOnly says that the rows of a transaction with a replication origin,
	// which a subscription has written, are no events.
	LocalOnly bool
	// Extra names further columns whose text the events carry, as the tables
	// spell them. A table without one of them is an error.
	Extra []string
}

// Decoder reads the messages of one replication connection, in their order.
// One goroutine uses it at a time.
type Decoder struct {
	tables      map[Table]bool
	own         map[uint32]Table
	partitioned map[uint32][]string
	columns     map[string]string
	mustHave    map[string]bool
	extra       []string
	localOnly   bool

	// relations holds the plan of each relation announced so far, nil for one
	// that is not an outbox table.
	relations map[uint32]*plan

	// types holds what the server has said of types that are not built in, by
	// OID: the type below, if it is a domain.
	types map[uint32]typeID

	// commitLSN is that of the current transaction, 0 between transactions.
	commitLSN uint64
	// rows counts the row changes of the current transaction.
	rows uint64
	// foreign says that the current transaction has a replication origin.
	foreign bool
	// deleted is the last row change, if it was the DELETE of a row that may be
	// moving to another partition.
	deleted deletedRow

	// failed is the error that ended this Decoder.
	failed *Error

	// Every insert reuses these: the event that the caller borrows, the wanted
	// columns as they came, and the values that had to be rewritten.
	event   Event
	raw     []value
	scratch []byte
}

// New returns a Decoder for one replication connection. The caller may change
// cfg afterwards.
func New(cfg Config) *Decoder {
	d := &Decoder{
		tables:      make(map[Table]bool, len(cfg.Tables)),
		own:         maps.Clone(cfg.Own),
		partitioned: maps.Clone(cfg.Partitioned),
		columns:     maps.Clone(cfg.Columns),
		mustHave:    make(map[string]bool, len(cfg.Required)),
		extra:       append([]string(nil), cfg.Extra...),
		localOnly:   cfg.LocalOnly,
		relations:   make(map[uint32]*plan),
		types:       make(map[uint32]typeID),
		scratch:     make([]byte, 0, scratchStart),
	}
	for _, t := range cfg.Tables {
		d.tables[t] = true
	}
	for _, name := range cfg.Required {
		d.mustHave[name] = true
	}
	d.event.Extra = make([][]byte, len(cfg.Extra))
	d.raw = make([]value, int(logicalColumns)+len(cfg.Extra))
	return d
}

// Decode reads one pgoutput message, the whole payload of one XLogData. What
// it returns is borrowed: it is valid until the next call, and as long as msg
// is not changed.
//
// An error is always an *Error. It is final: from then on, Decode returns the
// same error.
func (d *Decoder) Decode(msg []byte) (Change, error) {
	if d.failed != nil {
		return Change{}, d.failed
	}
	d.takeBack()
	change, err := d.decode(msg)
	if err != nil {
		err.CommitLSN = d.commitLSN
		d.failed = err
		return Change{}, err
	}
	return change, nil
}

func (d *Decoder) decode(msg []byte) (Change, *Error) {
	if len(msg) == 0 {
		return Change{}, fault("malformed message: it is empty")
	}
	r := reader{rest: msg[1:]}
	switch msg[0] {
	case 'B':
		return d.begin(&r)
	case 'C':
		return d.commit(&r)
	case 'I':
		return d.insert(&r)
	case 'R':
		return Change{}, d.relation(&r)
	case 'U':
		return Change{}, d.update(&r)
	case 'D':
		return Change{}, d.delete(&r)
	case 'T':
		return Change{}, truncate(&r)
	case 'Y':
		return Change{}, d.typeName(&r)
	case 'O':
		return Change{}, d.origin(&r)
	case 'M':
		return Change{}, message(&r)
	}
	return Change{}, fault("unknown message type %q: not part of pgoutput protocol version 1", msg[0])
}
