package checker

import (
	"crypto/sha256"
	"fmt"
	"strings"
	"testing"

	"github.com/twmb/franz-go/pkg/kgo"
)

const testPartitions = 6

// fixture is a truth of three aggregates with four events each, and the records that it asks for.
func fixture() (*Truth, []*kgo.Record) {
	var events []*Expected
	var records []*kgo.Record
	offsets := map[int32]int64{}
	for seq := range 4 {
		for _, key := range []string{"1", "2", "Größe-日本"} {
			id := fmt.Sprintf("%s-%d", key, seq)
			value := []byte(fmt.Sprintf(`{"id": %q}`, id))
			own := []kgo.RecordHeader{{Key: "agg", Value: []byte(key)}, {Key: "seq", Value: []byte(fmt.Sprint(seq))}}
			event := &Expected{
				ID: id, Topic: "t.order", Key: key, Type: "changed", Seq: int64(seq),
				Value: sha256.Sum256(value), Headers: headerDigest(own),
			}
			if seq == 2 {
				event.Null, value = true, nil
			}
			events = append(events, event)
			partition := PartitionOf([]byte(key), testPartitions)
			records = append(records, &kgo.Record{
				Topic: "t.order", Partition: partition, Offset: offsets[partition], Key: []byte(key), Value: value,
				Headers: append([]kgo.RecordHeader{
					{Key: "id", Value: []byte(id)},
					{Key: "type", Value: []byte("changed")},
					{Key: "source", Value: []byte("7301234567890123456/walpost")},
					{Key: "pos", Value: []byte(fmt.Sprintf("00000001-%016X-00000000", len(records)))},
				}, own...),
			})
			offsets[partition]++
		}
	}
	return NewTruth(events, map[string]bool{"gone": true}), records
}

func check(truth *Truth, records []*kgo.Record) Report {
	checker := New(truth)
	for _, r := range records {
		checker.Add(r, testPartitions)
	}
	return checker.Report()
}

// another is a copy of a record under another id.
func another(r *kgo.Record, id string) *kgo.Record {
	c := *r
	c.Headers = append([]kgo.RecordHeader{{Key: "id", Value: []byte(id)}}, r.Headers[1:]...)
	return &c
}

func setHeader(r *kgo.Record, name, value string) {
	for i, h := range r.Headers {
		if h.Key == name {
			r.Headers[i].Value = []byte(value)
		}
	}
}

func TestCheckerAcceptsWhatIsRight(t *testing.T) {
	t.Parallel()
	truth, records := fixture()
	report := check(truth, records)
	if err := report.Err(); err != nil || report.Distinct != len(records) || len(report.Repeats) != 0 {
		t.Fatalf("%v: %s", err, report)
	}
	// A relay that was killed replays a piece of the stream: repeats, and nothing else.
	report = check(truth, append(records[:9:9], records[5:]...))
	if err := report.Err(); err != nil || len(report.Repeats) != 4 {
		t.Fatalf("%v: %s", err, report)
	}
	if first := report.Repeats[0]; first.ID != Header(records[5], "id") || first.FirstOffset != records[5].Offset {
		t.Errorf("first repeat: %+v", first)
	}
}

// TestCheckerSees breaks the records in each way that the checker is for. Exactly that kind must be
// reported.
func TestCheckerSees(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		breakIt func(records []*kgo.Record) []*kgo.Record
		want    string // the fault; others that follow from it are in also
		also    string
	}{
		"a missing last event": {
			func(r []*kgo.Record) []*kgo.Record { return r[:len(r)-1] }, "1 missing", "",
		},
		"a missing event between others": {
			func(r []*kgo.Record) []*kgo.Record { return append(r[:3:3], r[4:]...) }, "1 missing", "1 out of order",
		},
		"no record at all": {
			func([]*kgo.Record) []*kgo.Record { return nil }, "12 missing", "",
		},
		"a rolled back event": {
			func(r []*kgo.Record) []*kgo.Record { return append(r, another(r[11], "gone")) }, "1 rolled back", "",
		},
		"an unknown event": {
			func(r []*kgo.Record) []*kgo.Record { return append(r, another(r[11], "nobody")) }, "1 unknown", "",
		},
		"a record without id": {
			func(r []*kgo.Record) []*kgo.Record { c := *r[11]; c.Headers = nil; return append(r, &c) }, "1 unknown", "",
		},
		"two events of a key swapped": {
			// Each keeps its place and its pos.
			func(r []*kgo.Record) []*kgo.Record {
				early, late := Header(r[0], "pos"), Header(r[3], "pos")
				setHeader(r[0], "pos", late)
				setHeader(r[3], "pos", early)
				r[0], r[3] = r[3], r[0]
				return r
			}, "2 out of order", "",
		},
		"another value": {
			func(r []*kgo.Record) []*kgo.Record { r[4].Value = []byte(`{"id":"2-1"}`); return r }, "1 with wrong bytes", "",
		},
		"an empty value for a tombstone": {
			func(r []*kgo.Record) []*kgo.Record { r[6].Value = []byte{}; return r }, "1 with wrong bytes", "",
		},
		"a tombstone for a value": {
			func(r []*kgo.Record) []*kgo.Record { r[0].Value = nil; return r }, "1 with wrong bytes", "",
		},
		"another key": {
			func(r []*kgo.Record) []*kgo.Record { r[0].Key = []byte("3"); return r }, "1 with wrong bytes", "",
		},
		"another topic": {
			func(r []*kgo.Record) []*kgo.Record { r[0].Topic = "t.customer"; return r }, "1 with wrong bytes", "",
		},
		"another partition": {
			func(r []*kgo.Record) []*kgo.Record {
				r[11].Partition = (r[11].Partition + 1) % testPartitions
				return r
			}, "1 in the wrong partition", "",
		},
		"another type": {
			func(r []*kgo.Record) []*kgo.Record { setHeader(r[0], "type", "deleted"); return r }, "1 with wrong headers", "",
		},
		"another own header": {
			func(r []*kgo.Record) []*kgo.Record { setHeader(r[0], "seq", "7"); return r }, "1 with wrong headers", "",
		},
		"own headers in another order": {
			func(r []*kgo.Record) []*kgo.Record {
				h := r[0].Headers
				h[4], h[5] = h[5], h[4]
				return r
			}, "1 with wrong headers", "",
		},
		"a header too many": {
			func(r []*kgo.Record) []*kgo.Record {
				r[0].Headers = append(r[0].Headers, kgo.RecordHeader{Key: "extra"})
				return r
			}, "1 with wrong headers", "",
		},
		"a malformed source": {
			func(r []*kgo.Record) []*kgo.Record { setHeader(r[11], "source", "walpost"); return r }, "1 with wrong headers", "",
		},
		"a malformed pos": {
			func(r []*kgo.Record) []*kgo.Record { setHeader(r[0], "pos", "1-2-3"); return r }, "1 with a wrong pos", "",
		},
		"a pos that does not grow": {
			func(r []*kgo.Record) []*kgo.Record { setHeader(r[9], "pos", Header(r[0], "pos")); return r }, "1 with a wrong pos", "",
		},
		"a repeat with another pos": {
			func(r []*kgo.Record) []*kgo.Record {
				c := another(r[11], Header(r[11], "id"))
				setHeader(c, "pos", "00000001-00000000FFFFFFFF-00000000")
				return append(r, c)
			}, "1 with a wrong pos", "",
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			truth, records := fixture()
			report := check(truth, test.breakIt(records))
			err := report.Err()
			if err == nil {
				t.Fatalf("nothing was reported: %s", report)
			}
			faults := strings.Split(err.Error(), "\n")
			for _, fault := range faults {
				if !strings.HasPrefix(fault, test.want) && (test.also == "" || !strings.HasPrefix(fault, test.also)) {
					t.Errorf("unexpected: %s\n%s", fault, report)
				}
			}
			if !strings.Contains(err.Error(), test.want) || !strings.Contains(report.String(), test.want) {
				t.Errorf("want %q, got %s", test.want, report)
			}
		})
	}
}

func TestFindingsAreBounded(t *testing.T) {
	t.Parallel()
	truth, records := fixture()
	for range 100 {
		records = append(records, another(records[0], "nobody"))
	}
	report := check(truth, records)
	if report.Unknown.Count != 100 || len(report.Unknown.First) != describedFindings {
		t.Errorf("%d, %d described", report.Unknown.Count, len(report.Unknown.First))
	}
}

// TestMurmur2 uses the vectors of the tests of Kafka's Java client.
func TestMurmur2(t *testing.T) {
	t.Parallel()
	for key, want := range map[string]int32{
		"21": -973932308, "foobar": -790332482, "a-little-bit-long-string": -985981536, "a-little-bit-longer-string": -1486304829,
		"lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8": -58897971, "abc": 479470107,
	} {
		if got := int32(murmur2([]byte(key))); got != want {
			t.Errorf("%s: %d, want %d", key, got, want)
		}
	}
	// And the partitioner of the client library agrees on any key.
	hash := kgo.StickyKeyPartitioner(nil).ForTopic("t")
	for i := range 1000 {
		key := []byte(strings.Repeat("k", i%9) + fmt.Sprint(i))
		if got, want := PartitionOf(key, 7), int32(hash.Partition(&kgo.Record{Key: key}, 7)); got != want {
			t.Errorf("%s: %d, want %d", key, got, want)
		}
	}
}

func TestOrderedHeaders(t *testing.T) {
	t.Parallel()
	headers, err := OrderedHeaders(`{"b": "1", "a": "ü\n", "": ""}`)
	if err != nil || len(headers) != 3 || headers[0].Key != "b" || string(headers[1].Value) != "ü\n" {
		t.Errorf("%v, %v", headers, err)
	}
	for _, bad := range []string{"", "[]", `{"a": 1}`, `{"a": {}}`, `{"a"`} {
		if _, err := OrderedHeaders(bad); err == nil {
			t.Errorf("%q was accepted", bad)
		}
	}
}
