package decoder

import "bytes"

// maxGoneID is the longest id, in bytes, that is kept of a row that was deleted.
const maxGoneID = 1024

// goneRow is a DELETE that may be half of an UPDATE which moves a row to another
// partition. Postgres writes that as a DELETE and, next to it, an INSERT of the
// row as it is now. No service has inserted it, so it is no event. It can be told
// only if the publication publishes deletes and the id is part of the replica
// identity.
type goneRow struct {
	oid   uint32
	id    value
	known bool
}

// keep notes the deleted row of a table, if its id came with it.
func (g *goneRow) keep(oid uint32, id value) {
	if id.form != 't' && id.form != 'b' || len(id.data) > maxGoneID {
		return
	}
	g.oid, g.id.form, g.known = oid, id.form, true
	g.id.data = append(g.id.data[:0], id.data...)
}

// moved reports whether a row that is inserted is the one that was deleted by the
// row change before; gone says whether that one was such a DELETE.
func (d *Decoder) moved(oid uint32, p *plan, gone bool) bool {
	if !gone || d.gone.oid != oid {
		return false
	}
	id := d.raw[p.logical[colID]]
	return id.form == d.gone.id.form && bytes.Equal(id.data, d.gone.id.data)
}
