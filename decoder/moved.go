package decoder

import (
	"bytes"
	"slices"
)

// deletedRow is a DELETE that may be one half of an UPDATE that moves a row to
// another partition. Postgres writes that as a DELETE and, right after it, an
// INSERT of the row as it is now. No service inserted that row, so it is no
// event. The two are recognized only if the publication publishes deletes and
// the id is part of the replica identity.
type deletedRow struct {
	oid   uint32
	whole bool   // the replica identity is the whole row
	tuple []byte // a copy
	known bool
}

// column reads one column of a tuple whose bounds were checked before.
func (r *reader) column() value {
	v := value{form: r.byte()}
	if v.form == 't' || v.form == 'b' {
		v.data = r.take(r.uint32())
	}
	return v
}

// partitionKey notes which columns of a row are part of the partition key.
func (p *plan) partitionKey(key []string, columns []column) {
	if len(key) == 0 {
		return
	}
	p.moves = make([]bool, len(columns))
	for i, c := range columns {
		p.moves[i] = slices.Contains(key, c.name)
	}
}

// moved reports whether an inserted row is the one that was deleted right before:
// all that is known of that one is the same, except for the partition key. If the
// whole row is known, only the columns of events count: the UPDATE may have
// changed others, too.
func (d *Decoder) moved(oid uint32, p *plan, tuple []byte) bool {
	if d.deleted.oid != oid || p.moves == nil {
		return false
	}
	was, is := reader{rest: d.deleted.tuple}, reader{rest: tuple}
	columns := int(was.uint16())
	if columns != int(is.uint16()) || columns != len(p.moves) {
		return false
	}
	sameID, otherPartition := false, false
	for i := range columns {
		old, now := was.column(), is.column()
		if was.cut || is.cut {
			return false
		}
		// NULL also stands for columns outside the replica identity.
		if old.form == 'n' || old.form == 'u' {
			continue
		}
		same := old.form == now.form && bytes.Equal(old.data, now.data)
		switch {
		case p.moves[i]:
			otherPartition = otherPartition || !same
		case !same && (!d.deleted.whole || p.want[i] != absent):
			return false
		case p.want[i] != absent && p.want[i] == p.logical[colID]:
			sameID = true
		}
	}
	return sameID && otherPartition
}
