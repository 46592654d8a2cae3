package decoder

import (
	"bytes"
	"strings"
	"testing"
)

// inOutbox is an error about a column of the outbox table. reason is how it begins.
func inOutbox(column, eventID, reason string) Error {
	return Error{
		Schema: "public", Table: "outbox", Column: column, CommitLSN: testLSN, EventID: eventID, Reason: reason,
	}
}

// anyRow is an error of the columns of the table: no row of that time can be decoded.
func anyRow(err Error) Error {
	err.Relation = true
	return err
}

func binaryOnly(err Error) Error {
	err.Binary = true
	return err
}

// TestErrors feeds sequences of messages in which only the last one is wrong.
func TestErrors(t *testing.T) {
	t.Parallel()
	seq := func(messages ...[]byte) [][]byte { return messages }
	// row is a transaction whose only insert has these fields.
	row := func(fields ...field) [][]byte {
		return seq(beginMessage(), outboxRelation(), insertMessage(outboxOID, fields...))
	}
	relation := func(columns []col) [][]byte {
		return seq(beginMessage(), relationMessage(outboxOID, "public", "outbox", columns...))
	}
	for name, test := range map[string]struct {
		messages [][]byte
		want     Error // Reason is the beginning of it
	}{
		"empty message":   {seq(nil), Error{Reason: "malformed message: it is empty"}},
		"unknown message": {seq([]byte("S\x00\x00\x00\x01\x01")), Error{Reason: "unknown message type 'S'"}},
		"nested begin": {
			seq(beginMessage(), beginMessage()),
			Error{CommitLSN: testLSN, Reason: "Begin message inside a transaction"},
		},
		"begin without LSN":    {seq(beginAt(0)), Error{Reason: "Begin message without a commit LSN"}},
		"commit without begin": {seq(commitMessage(8, 9)), Error{Reason: "Commit message outside a transaction"}},
		"commit after commit": {
			seq(beginMessage(), commitMessage(testLSN, testLSN+8), commitMessage(testLSN, testLSN+8)),
			Error{Reason: "Commit message outside a transaction"},
		},
		"commit of another": {
			seq(beginMessage(), commitMessage(testLSN+1, testLSN+8)),
			Error{CommitLSN: testLSN, Reason: "Commit message with commit LSN 1/21, other than its Begin"},
		},
		"commit that ends before it begins": {
			seq(beginMessage(), commitMessage(testLSN, testLSN-1)),
			Error{CommitLSN: testLSN, Reason: "Commit message with end LSN 1/1F, before its commit LSN"},
		},
		"commit with flags": {
			seq(beginMessage(), append([]byte("C\x02"), commitMessage(testLSN, testLSN+8)[2:]...)),
			Error{CommitLSN: testLSN, Reason: "Commit message with unknown flags 0x2"},
		},
		"insert outside a transaction": {
			seq(outboxRelation(), outboxInsert("k")), Error{Reason: "Insert message outside a transaction"},
		},
		"update outside a transaction": {
			seq(otherRelation(), updateMessage(otherOID, null)), Error{Reason: "Update message outside a transaction"},
		},
		"delete outside a transaction": {
			seq(otherRelation(), deleteMessage(otherOID, null)), Error{Reason: "Delete message outside a transaction"},
		},
		"insert after commit": {
			seq(outboxRelation(), beginMessage(), commitMessage(testLSN, testLSN), outboxInsert("k")),
			Error{Reason: "Insert message outside a transaction"},
		},
		"insert for an unknown relation": {
			seq(beginMessage(), outboxInsert("k")),
			Error{
				CommitLSN: testLSN,
				Reason:    "Insert message for relation oid 100, which no Relation message has announced",
			},
		},
		"update for an unknown relation": {
			seq(beginMessage(), updateMessage(7, null)),
			Error{CommitLSN: testLSN, Reason: "Update message for relation oid 7, which no"},
		},
		"insert with an old tuple": {
			seq(beginMessage(), outboxRelation(), bytes.Replace(outboxInsert("k"), []byte("dN"), []byte("dK"), 1)),
			Error{CommitLSN: testLSN, Reason: "malformed Insert message: tuple of kind 'K'"},
		},
		"update with an unknown tuple": {
			seq(beginMessage(), otherRelation(), []byte("U\x00\x00\x00\xc8X\x00\x00")),
			Error{CommitLSN: testLSN, Reason: "malformed Update message: tuple of kind 'X'"},
		},
		"update with an old tuple alone": {
			seq(beginMessage(), otherRelation(), []byte("U\x00\x00\x00\xc8K\x00\x00")),
			Error{CommitLSN: testLSN, Reason: "malformed Update message: it is cut short"},
		},
		"delete with a new tuple": {
			seq(beginMessage(), otherRelation(), []byte("D\x00\x00\x00\xc8N\x00\x00")),
			Error{CommitLSN: testLSN, Reason: "malformed Delete message: tuple of kind 'N'"},
		},
		"column of unknown form": {
			seq(beginMessage(), otherRelation(), insertMessage(otherOID, null, field{form: 'x'})),
			Error{CommitLSN: testLSN, Reason: "malformed Insert message: column 2 has the unknown form 'x'"},
		},
		"column longer than the message": {
			seq(beginMessage(), otherRelation(), []byte("I\x00\x00\x00\xc8N\x00\x01t\xff\xff\xff\xffabc")),
			Error{CommitLSN: testLSN, Reason: "malformed Insert message: it is cut short"},
		},
		"truncate of more than is there": {
			seq([]byte("T\x40\x00\x00\x01\x00\x00\x00\x00\x01")),
			Error{Reason: "malformed Truncate message: 1073741825 relations in 4 bytes"},
		},
		"row with a column too few": {
			row(txt("i-1"), txt("order"), txt("k"), null, null, null),
			inOutbox("", "", "row with 6 columns, where its relation has 7"),
		},
		"relation without payload": {
			relation(without(outboxColumns, "payload")),
			anyRow(inOutbox("payload", "", `required column "payload" is missing (columns: id, aggregatetype, aggregateid, type, headers, created_at)`)),
		},
		"relation without columns": {
			relation(nil),
			anyRow(inOutbox("id", "", `required column "id" is missing (columns: none)`)),
		},
		"payload of integers": {
			relation(with(outboxColumns, "payload", oidInt4)),
			anyRow(inOutbox("payload", "", `column "payload" has type integer (oid 23), want jsonb, json, text, varchar, char, citext, xml or bytea`)),
		},
		"payload of a user's type": {
			relation(with(outboxColumns, "payload", 16384)),
			anyRow(inOutbox("payload", "", `column "payload" has type user-defined (oid 16384), want jsonb`)),
		},
		"headers of bytea": {
			relation(with(outboxColumns, "headers", oidBytea)),
			anyRow(inOutbox("headers", "", `column "headers" has type bytea (oid 17), want jsonb, json, text, varchar, char or citext`)),
		},
		"aggregatetype of an obscure type": {
			relation(with(outboxColumns, "aggregatetype", 603)),
			anyRow(inOutbox("aggregatetype", "", `column "aggregatetype" has type oid 603, want text, varchar, char, name or a user-defined type`)),
		},
		"id NULL": {
			row(null, txt("order"), txt("k"), null, null, null, null),
			inOutbox("id", "", `column "id" is NULL`),
		},
		"aggregatetype NULL": {
			row(txt("i-1"), null, txt("k"), null, null, null, null),
			inOutbox("aggregatetype", "i-1", `column "aggregatetype" is NULL`),
		},
		"aggregateid NULL": {
			row(txt("i-1"), txt("order"), null, null, null, null, null),
			inOutbox("aggregateid", "i-1", `column "aggregateid" is NULL or empty`),
		},
		"aggregateid empty": {
			row(txt("i-1"), txt("order"), txt(""), null, null, null, null),
			inOutbox("aggregateid", "i-1", `column "aggregateid" is NULL or empty`),
		},
		"payload unchanged": {
			row(txt("i-1"), txt("order"), txt("k"), null, unchanged, null, null),
			inOutbox("payload", "i-1", `column "payload" holds an unchanged TOAST value`),
		},
		"type unchanged": {
			row(txt("i-1"), txt("order"), txt("k"), unchanged, null, null, null),
			inOutbox("type", "i-1", `column "type" holds an unchanged TOAST value`),
		},
		"headers in malformed binary form": {
			row(txt("i-1"), txt("order"), txt("k"), null, null, bin("{}"), null),
			inOutbox("headers", "i-1", `column "headers" of type jsonb (oid 3802) came in a malformed`),
		},
		"extra column unreadable": {
			row(txt("i-1"), txt("order"), txt("k"), null, null, null, bin("12345678")),
			binaryOnly(inOutbox("created_at", "i-1",
				`column "created_at" of type timestamptz (oid 1184) came in binary form`)),
		},
		"jsonb of another version": {
			row(txt("i-1"), txt("order"), txt("k"), null, bin("\x02{}"), null, null),
			inOutbox("payload", "i-1",
				`column "payload" of type jsonb (oid 3802) came in a malformed binary form of 3 bytes`),
		},
		"uuid of 15 bytes": {
			row(bin("123456789012345"), txt("order"), txt("k"), null, null, null, null),
			inOutbox("id", "", `column "id" of type uuid (oid 2950) came in a malformed binary form of 15 bytes`),
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			cfg := outboxConfig
			if test.want.Column == "created_at" {
				cfg.Extra = []string{"created_at"}
			}
			d := New(cfg)
			last := len(test.messages) - 1
			for i, message := range test.messages[:last] {
				if _, err := d.Decode(message); err != nil {
					t.Fatalf("message %d: %v", i, err)
				}
			}
			change, err := d.Decode(test.messages[last])
			if err == nil {
				t.Fatalf("no error, but %+v", change)
			}
			got := *asError(t, err)
			if !strings.HasPrefix(got.Reason, test.want.Reason) {
				t.Errorf("reason %q\n  want %q", got.Reason, test.want.Reason)
			}
			got.Reason = test.want.Reason
			if got != test.want {
				t.Errorf("got %+v\nwant %+v", got, test.want)
			}
			if _, again := d.Decode(beginMessage()); asError(t, again) != asError(t, err) {
				t.Errorf("the next call returned %v, want the same error", again)
			}
		})
	}
}

// TestEveryCutIsAnError cuts each message at any byte, or adds one.
func TestEveryCutIsAnError(t *testing.T) {
	t.Parallel()
	eachCapture(t, func(t *testing.T, _ int, format string, messages [][]byte) {
		for i, message := range messages {
			for n := range len(message) + 2 {
				damaged := append([]byte(nil), message...)
				if n < len(message) {
					damaged = damaged[:n:n]
				} else {
					damaged = append(damaged, make([]byte, n-len(message))...)
				}
				d := New(captureConfig(format))
				for _, before := range messages[:i] {
					if _, err := d.Decode(before); err != nil {
						t.Fatal(err)
					}
				}
				if _, err := d.Decode(damaged); (err == nil) != (n == len(message)) {
					t.Fatalf("message %d (%c) of %d bytes, %d of them given: error %v",
						i, message[0], len(message), n, err)
				}
			}
		}
	})
}

func TestErrorText(t *testing.T) {
	t.Parallel()
	err := Error{
		Schema: "public", Table: "outbox", Column: "aggregateid", CommitLSN: testLSN, EventID: "i-1",
		Reason: `column "aggregateid" is NULL or empty`,
	}
	const want = `table "public"."outbox": event "i-1": column "aggregateid" is NULL or empty, ` +
		`in the transaction with commit LSN 1/20`
	if got := err.Error(); got != want {
		t.Errorf("got %s\nwant %s", got, want)
	}
	if got := (&Error{Reason: "alone"}).Error(); got != "alone" {
		t.Errorf("got %s, want alone", got)
	}
}

func TestErrorNamesAtMost32Columns(t *testing.T) {
	t.Parallel()
	var columns []col
	for range 1600 {
		columns = append(columns, col{"c", oidText})
	}
	d := New(outboxConfig)
	_, err := d.Decode(relationMessage(outboxOID, "public", "outbox", columns...))
	if err == nil || !strings.HasSuffix(err.Error(), "(columns: "+strings.Repeat("c, ", 32)+"...)") {
		t.Errorf("got %v", err)
	}
}
