package decoder

import "math"

func (d *Decoder) begin(r *reader) (Change, *Error) {
	change := Change{
		Kind:       Begin,
		CommitLSN:  r.uint64(),
		CommitTime: int64(r.uint64()),
		XID:        r.uint32(),
	}
	if err := r.end("Begin"); err != nil {
		return Change{}, err
	}
	if d.commitLSN != 0 {
		return Change{}, fault("Begin message inside a transaction")
	}
	if change.CommitLSN == 0 {
		return Change{}, fault("Begin message without a commit LSN")
	}
	d.commitLSN, d.rows, d.foreign = change.CommitLSN, 0, false
	d.deleted = deletedRow{} // which may be a large one
	return change, nil
}

func (d *Decoder) commit(r *reader) (Change, *Error) {
	flags := r.byte()
	change := Change{
		Kind:       Commit,
		CommitLSN:  r.uint64(),
		EndLSN:     r.uint64(),
		CommitTime: int64(r.uint64()),
	}
	if err := r.end("Commit"); err != nil {
		return Change{}, err
	}
	switch {
	case d.commitLSN == 0:
		return Change{}, fault("Commit message outside a transaction")
	case flags != 0:
		return Change{}, fault("Commit message with unknown flags %#x", flags)
	case change.CommitLSN != d.commitLSN:
		return Change{}, fault("Commit message with commit LSN %X/%X, other than its Begin",
			change.CommitLSN>>32, uint32(change.CommitLSN))
	case change.EndLSN < change.CommitLSN:
		return Change{}, fault("Commit message with end LSN %X/%X, before its commit LSN",
			change.EndLSN>>32, uint32(change.EndLSN))
	}
	d.commitLSN = 0
	return change, nil
}

// row checks and counts one row change, and returns its index and the plan of
// its relation. The index counts all row changes, not only the events, so that
// the position of an event does not move when the list of tables changes.
func (d *Decoder) row(message string, oid uint32) (uint32, *plan, *Error) {
	if d.commitLSN == 0 {
		return 0, nil, fault("%s message outside a transaction", message)
	}
	p, known := d.relations[oid]
	if !known {
		return 0, nil, fault("%s message for relation oid %d, which no Relation message has announced", message, oid)
	}
	index := d.rows
	if index > math.MaxUint32 {
		return 0, nil, fault("transaction with more than %d row changes", uint64(math.MaxUint32)+1)
	}
	d.rows++
	if p != nil { // rows that a trigger writes to other tables in between do not count
		d.deleted.known = false
	}
	return uint32(index), p, nil
}
