package decoder

import "bytes"

// The messages of this file make no events. They are read to their end all the
// same, and the row changes among them are counted.

func (d *Decoder) update(r *reader) *Error {
	oid, part := r.uint32(), r.byte()
	if part == 'K' || part == 'O' {
		if _, err := r.tuple("Update", nil, nil); err != nil {
			return err
		}
		part = r.byte()
	}
	if part != 'N' && !r.cut {
		return fault("malformed Update message: tuple of kind %q", part)
	}
	return d.skipRow(r, "Update", oid)
}

// delete remembers a row that may be moving to another partition.
func (d *Decoder) delete(r *reader) *Error {
	oid, part := r.uint32(), r.byte()
	if part != 'K' && part != 'O' && !r.cut {
		return fault("malformed Delete message: tuple of kind %q", part)
	}
	row := r.rest
	if err := d.skipRow(r, "Delete", oid); err != nil {
		return err
	}
	if p := d.relations[oid]; p != nil && p.moves != nil {
		d.deleted = deletedRow{oid, part == 'O', bytes.Clone(row), true}
	}
	return nil
}

// skipRow reads the last tuple of a row change that is no event, and counts it.
func (d *Decoder) skipRow(r *reader, message string, oid uint32) *Error {
	if _, err := r.tuple(message, nil, nil); err != nil {
		return err
	}
	if err := r.end(message); err != nil {
		return err
	}
	_, _, err := d.row(message, oid)
	return err
}

func truncate(r *reader) *Error {
	relations := uint64(r.uint32())
	r.byte() // CASCADE, RESTART IDENTITY
	if !r.cut && uint64(len(r.rest)) != 4*relations {
		return fault("malformed Truncate message: %d relations in %d bytes", relations, len(r.rest))
	}
	r.take(uint32(4 * relations))
	return r.end("Truncate")
}

// typeName reads the name of a type that is not built in. For a domain, the
// server names the type below. The message comes before each Relation message
// that needs it.
func (d *Decoder) typeName(r *reader) *Error {
	oid := r.uint32()
	name := typeID{string(r.cstring()), string(r.cstring())}
	if err := r.end("Type"); err != nil {
		return err
	}
	d.types[oid] = name
	return nil
}

// origin reads where a replicated transaction comes from.
func (d *Decoder) origin(r *reader) *Error {
	r.uint64()
	r.cstring()
	d.foreign = true
	return r.end("Origin")
}

// message reads a logical decoding message. One that is not transactional may
// come at any place, also between transactions.
func message(r *reader) *Error {
	r.byte() // 1 if it is transactional
	r.uint64()
	r.cstring()
	r.take(r.uint32())
	return r.end("Message")
}
