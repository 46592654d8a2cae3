package decoder

// value is one column of a row as the message holds it.
type value struct {
	data []byte
	form byte // 'n' NULL, 'u' unchanged TOAST, 't' text, 'b' binary
}

// tuple reads a tuple and returns its number of columns. Column i is put into
// into[want[i]]. It steps over a column whose want is absent, or that has none.
func (r *reader) tuple(message string, want []int16, into []value) (int, *Error) {
	columns := int(r.uint16())
	for i := range columns {
		v := value{form: r.byte()}
		switch v.form {
		case 't', 'b':
			v.data = r.take(r.uint32())
		case 'n', 'u':
		default:
			if !r.cut {
				return 0, fault("malformed %s message: column %d has the unknown form %q", message, i+1, v.form)
			}
		}
		if r.cut {
			return 0, r.end(message)
		}
		if i < len(want) && want[i] >= 0 {
			into[want[i]] = v
		}
	}
	return columns, nil
}

// insert reads an Insert message. A row of an outbox table becomes an event.
func (d *Decoder) insert(r *reader) (Change, *Error) {
	oid, part := r.uint32(), r.byte()
	if r.cut {
		return Change{}, r.end("Insert")
	}
	if part != 'N' {
		return Change{}, fault("malformed Insert message: tuple of kind %q", part)
	}
	afterDelete := d.deleted.known
	index, p, err := d.row("Insert", oid)
	if err != nil {
		return Change{}, err
	}
	if p != nil && p.renamed {
		return Change{}, p.inTable(fault("a row was inserted while outbox table %q.%q had this name, and is no event",
			d.own[oid].Schema, d.own[oid].Name))
	}
	var want []int16
	if p != nil {
		want = p.want
	}
	row := r.rest
	columns, err := r.tuple("Insert", want, d.raw)
	if err != nil {
		return Change{}, p.inTable(err)
	}
	if err := r.end("Insert"); err != nil {
		return Change{}, p.inTable(err)
	}
	if p == nil {
		return Change{}, nil
	}
	if columns != len(want) {
		return Change{}, p.inTable(fault("row with %d columns, where its relation has %d", columns, len(want)))
	}
	if d.foreign && d.localOnly {
		return Change{}, nil
	}
	if afterDelete && d.moved(oid, p, row) {
		d.event.Schema, d.event.Table, d.event.Index = p.schema, p.table, index
		d.event.ID, err = d.required(p, colID)
		return Change{Kind: Moved, Event: &d.event}, err
	}
	if err := d.fill(p); err != nil {
		return Change{}, p.inTable(err)
	}
	d.event.Index = index
	return Change{Kind: Insert, Event: &d.event}, nil
}

// fill makes the columns in d.raw into d.event.
func (d *Decoder) fill(p *plan) *Error {
	e := &d.event
	e.Schema, e.Table, e.HasType = p.schema, p.table, p.logical[colType] != absent

	// The id comes first: from then on every error can name the event.
	id, err := d.required(p, colID)
	if err != nil {
		return err
	}
	e.ID = id
	if err := d.fillRest(p); err != nil {
		err.EventID = string(id)
		return err
	}
	return nil
}

func (d *Decoder) fillRest(p *plan) (err *Error) {
	e := &d.event
	if e.AggregateType, err = d.required(p, colAggregateType); err != nil {
		return err
	}
	if e.Key, err = d.required(p, colAggregateID); err != nil {
		return err
	}
	if len(e.Key) == 0 {
		return p.null(colAggregateID)
	}
	if e.Type, err = d.text(p, p.logical[colType]); err != nil {
		return err
	}
	if e.Payload, err = d.payload(p); err != nil {
		return err
	}
	if e.Headers, err = d.text(p, p.logical[colHeaders]); err != nil {
		return err
	}
	for i, slot := range p.extra {
		if e.Extra[i], err = d.text(p, slot); err != nil {
			return err
		}
	}
	return nil
}

// required returns the text of a column that must not be NULL.
func (d *Decoder) required(p *plan, l logical) ([]byte, *Error) {
	text, err := d.text(p, p.logical[l])
	if err == nil && text == nil {
		return nil, p.null(l)
	}
	return text, err
}
