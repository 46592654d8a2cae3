package decoder

import (
	"bytes"
	"fmt"
	"testing"
	"time"

	"github.com/jackc/pglogrepl"
)

// agree reports how pglogrepl and this package understand a message
// differently, one that this package accepted as change. The plan is that of
// the message's relation before the message.
func agree(message []byte, change Change, plan *plan) error {
	parsed, err := parse(message)
	if err != nil {
		return fmt.Errorf("pglogrepl: %w", err)
	}
	switch m := parsed.(type) {
	case *pglogrepl.BeginMessage:
		want := Change{
			Kind: Begin, CommitLSN: uint64(m.FinalLSN), XID: m.Xid,
			CommitTime: postgresTime(m.CommitTime, change.CommitTime),
		}
		return same(change, want)
	case *pglogrepl.CommitMessage:
		want := Change{
			Kind: Commit, CommitLSN: uint64(m.CommitLSN), EndLSN: uint64(m.TransactionEndLSN),
			CommitTime: postgresTime(m.CommitTime, change.CommitTime),
		}
		return same(change, want)
	case *pglogrepl.InsertMessage:
		if plan == nil {
			return same(change, Change{})
		}
		return sameRow(change.Event, m.Tuple.Columns, plan)
	default:
		return same(change, Change{})
	}
}

// parse turns a panic of pglogrepl into an error.
func parse(message []byte) (m pglogrepl.Message, err error) {
	defer func() {
		if r := recover(); r != nil {
			err = fmt.Errorf("panic: %v", r)
		}
	}()
	return pglogrepl.Parse(message)
}

func same(got, want Change) error {
	if got != want {
		return fmt.Errorf("got %+v, want %+v", got, want)
	}
	return nil
}

// postgresTime turns a time of pglogrepl back into the server's microseconds.
// Times that nanoseconds since 1970 cannot hold wrap around there, so they are
// only compared, wrapped, with what this package read.
func postgresTime(t time.Time, got int64) int64 {
	epoch := time.Date(2000, 1, 1, 0, 0, 0, 0, time.UTC)
	if wrapped := time.Unix(0, epoch.UnixNano()+got*1000); wrapped.Equal(t) {
		return got
	}
	return t.Sub(epoch).Microseconds()
}

// sameRow compares the columns of an event that are passed on as they are.
func sameRow(e *Event, columns []*pglogrepl.TupleDataColumn, p *plan) error {
	if e == nil {
		return fmt.Errorf("no event")
	}
	if len(columns) != len(p.want) {
		return fmt.Errorf("%d columns, want %d", len(p.want), len(columns))
	}
	got := [logicalColumns][]byte{e.ID, e.AggregateType, e.Key, e.Type, e.Payload, e.Headers}
	for i, slot := range p.want {
		for l, of := range p.logical {
			if slot == absent || of != slot {
				continue
			}
			isBytea := logical(l) == colPayload && p.columns[slot].oid == oidBytea
			switch form := columns[i].DataType; {
			case form == 'n' && got[l] != nil:
				return fmt.Errorf("column %s is %q, want NULL", contract[l].name, got[l])
			case form == 't' && !isBytea && !bytes.Equal(got[l], columns[i].Data),
				form == 'b' && isBytea && !bytes.Equal(got[l], columns[i].Data):
				return fmt.Errorf("column %s is %q, want %q", contract[l].name, got[l], columns[i].Data)
			}
		}
	}
	return nil
}

// planOf returns what the Decoder knows of the relation of an Insert.
func planOf(d *Decoder, message []byte) *plan {
	if len(message) < 5 || message[0] != 'I' {
		return nil
	}
	return d.relations[be.Uint32(message[1:])]
}

func TestAgreesWithPglogrepl(t *testing.T) {
	t.Parallel()
	eachCapture(t, func(t *testing.T, _ int, format string, messages [][]byte) {
		d := New(captureConfig(format))
		for i, message := range messages {
			change, err := d.Decode(message)
			if err != nil {
				t.Fatalf("message %d: %v", i, err)
			}
			if err := agree(message, change, planOf(d, message)); err != nil {
				t.Errorf("message %d (%c): %v", i, message[0], err)
			}
		}
	})
}

// TestAgreesOnRelations compares the plan with what pglogrepl reads.
func TestAgreesOnRelations(t *testing.T) {
	t.Parallel()
	eachCapture(t, func(t *testing.T, _ int, format string, messages [][]byte) {
		d, checked := New(captureConfig(format)), 0
		for _, message := range messages {
			if _, err := d.Decode(message); err != nil {
				t.Fatal(err)
			}
			parsed, err := parse(message)
			if err != nil {
				t.Fatal(err)
			}
			m, ok := parsed.(*pglogrepl.RelationMessage)
			if !ok || d.relations[m.RelationID] == nil {
				continue
			}
			p := d.relations[m.RelationID]
			checked++
			if p.schema != m.Namespace || p.table != m.RelationName || len(p.want) != len(m.Columns) {
				t.Errorf("plan of %s.%s with %d columns, want %s.%s with %d",
					p.schema, p.table, len(p.want), m.Namespace, m.RelationName, len(m.Columns))
			}
			for i, slot := range p.want {
				want := m.Columns[i]
				if slot != absent && (p.columns[slot].name != want.Name || p.columns[slot].declared != want.DataType) {
					t.Errorf("column %d is %v, want %v", i, p.columns[slot], want)
				}
			}
		}
		if checked < 4 {
			t.Errorf("%d relations of outbox tables, want at least 4", checked)
		}
	})
}
