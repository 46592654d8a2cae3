package decoder

import (
	"bytes"
	"errors"
	"reflect"
	"testing"
)

// The input of the fuzz targets is a sequence of messages, each after its
// length in two bytes.

func join(messages [][]byte) (joined []byte) {
	for _, m := range messages {
		joined = append(be.AppendUint16(joined, uint16(len(m))), m...)
	}
	return joined
}

func split(joined []byte) (messages [][]byte) {
	for len(joined) >= 2 {
		n := min(int(be.Uint16(joined)), len(joined)-2)
		messages = append(messages, joined[2:2+n:2+n])
		joined = joined[2+n:]
	}
	return messages
}

// fuzzConfig takes in the tables of the captures and those made by hand.
var fuzzConfig = func() Config {
	cfg := captureConfig("text")
	cfg.Tables = append(cfg.Tables, Table{"pg_catalog", "box"})
	return cfg
}()

// seed adds every captured stream, its transactions one by one, and a few made
// by hand.
func seed(f *testing.F) {
	for _, major := range majors {
		for _, format := range formats {
			messages := loadCapture(f, major, format)
			f.Add(join(messages))
			for start, i := 0, 0; i < len(messages); i++ {
				if messages[i][0] == 'C' {
					f.Add(join(messages[start : i+1]))
					start = i + 1
				}
			}
		}
	}
	f.Add(join([][]byte{
		beginMessage(), outboxRelation(), otherRelation(), outboxInsert("k"), insertMessage(otherOID, null, null),
	}))
	f.Add(join([][]byte{beginMessage(), relationMessage(1, "", "box", outboxColumns...), outboxInsert("k")}))
	f.Add(join([][]byte{[]byte("R0000\x000\x00"), {}}))
}

func FuzzDecode(f *testing.F) {
	seed(f)
	f.Fuzz(func(t *testing.T, joined []byte) {
		before := bytes.Clone(joined)
		d, second := New(fuzzConfig), New(fuzzConfig)
		open, next := false, int64(0)
		for _, message := range split(joined) {
			change, err := d.Decode(message)
			again, errAgain := second.Decode(message)
			if !reflect.DeepEqual(change, again) || !reflect.DeepEqual(err, errAgain) {
				t.Fatalf("twice the same message: %+v, %v and %+v, %v", change, err, again, errAgain)
			}
			if err != nil {
				var e *Error
				if !errors.As(err, &e) || e.Reason == "" || !reflect.DeepEqual(change, Change{}) {
					t.Fatalf("error %#v with change %+v", err, change)
				}
				break
			}
			switch change.Kind {
			case Begin:
				if open || change.CommitLSN == 0 {
					t.Fatalf("begin %+v, within a transaction: %v", change, open)
				}
				open, next = true, 0
			case Commit:
				if !open || change.EndLSN < change.CommitLSN {
					t.Fatalf("commit %+v, within a transaction: %v", change, open)
				}
				open = false
			case Insert:
				e := change.Event
				if !open || e.ID == nil || e.AggregateType == nil || len(e.Key) == 0 || int64(e.Index) < next {
					t.Fatalf("event %+v, within a transaction: %v, expected index %d", e, open, next)
				}
				next = int64(e.Index) + 1
			}
			if (change.Kind == Insert) != (change.Event != nil) {
				t.Fatalf("change %+v", change)
			}
		}
		if !bytes.Equal(joined, before) {
			t.Fatal("the input was written to")
		}
	})
}

// FuzzAgree checks that whatever is accepted here is understood by pglogrepl in
// the same way. What is refused here is not shown to pglogrepl, which panics on
// such input or reserves whatever memory a message asks for.
func FuzzAgree(f *testing.F) {
	seed(f)
	f.Fuzz(func(t *testing.T, joined []byte) {
		d := New(fuzzConfig)
		for _, message := range split(joined) {
			change, err := d.Decode(message)
			if err != nil {
				return
			}
			if tooShortForPglogrepl(message) {
				continue
			}
			if err := agree(message, change, planOf(d, message)); err != nil {
				t.Fatalf("message %q: %v", message, err)
			}
		}
	})
}

// tooShortForPglogrepl tells the two valid messages that pglogrepl refuses: an
// insert into a table without columns, and a truncate of no table.
func tooShortForPglogrepl(message []byte) bool {
	return message[0] == 'I' && len(message) == 8 || message[0] == 'T' && len(message) == 6
}
