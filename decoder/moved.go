package decoder

import (
	"bytes"
	"slices"
)

// maxGone is the longest row, in bytes, that is kept of a DELETE.
const maxGone = 1 << 20

// goneRow is a DELETE that may be half of an UPDATE which moves a row to another
// partition. Postgres writes that as a DELETE and, next to it, an INSERT of the
// row as it is now. No service has inserted it, so it is no event. It can be told
// only if the publication publishes deletes and the id is part of the replica
// identity.
type goneRow struct {
	oid   uint32
	whole bool   // the replica identity is the whole row
	tuple []byte // a copy
	known bool
}

// keep notes the deleted row of a table.
func (g *goneRow) keep(oid uint32, whole bool, tuple []byte) {
	if len(tuple) <= maxGone {
		g.oid, g.whole, g.known = oid, whole, true
		g.tuple = append(g.tuple[:0], tuple...)
	}
}

// column reads one column of a tuple that was read before.
func (r *reader) column() value {
	v := value{form: r.byte()}
	if v.form == 't' || v.form == 'b' {
		v.data = r.take(r.uint32())
	}
	return v
}

// partitionKey tells which columns of a row are part of the partition key.
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
// what is known of that one is the same, but for the partition key, which is
// another. Of a whole row the columns of events count, since an UPDATE may change
// others with it.
func (d *Decoder) moved(oid uint32, p *plan, tuple []byte) bool {
	if d.gone.oid != oid || p.moves == nil {
		return false
	}
	was, is := reader{rest: d.gone.tuple}, reader{rest: tuple}
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
		if old.form == 'n' || old.form == 'u' { // NULL also stands for what is not part of the replica identity
			continue
		}
		same := old.form == now.form && bytes.Equal(old.data, now.data)
		switch {
		case p.moves[i]:
			otherPartition = otherPartition || !same
		case !same && (!d.gone.whole || p.want[i] != absent):
			return false
		case p.want[i] != absent && p.want[i] == p.logical[colID]:
			sameID = true
		}
	}
	return sameID && otherPartition
}
