package checker

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"

	"github.com/jackc/pgx/v5"
	"github.com/twmb/franz-go/pkg/kgo"
)

// Expected is what the record of one committed event must be. Values are kept as digests: a hundred
// thousand events with large payloads must not fill the memory.
type Expected struct {
	ID      string
	Topic   string
	Key     string
	Type    string
	Seq     int64 // position among the events of its aggregate, in commit order
	Null    bool  // a tombstone
	Value   [sha256.Size]byte
	Headers [sha256.Size]byte // of the row's own headers, by headerDigest
	Rank    int               // index among the committed events of its key
}

// Truth is what must be in Kafka, and what must not.
type Truth struct {
	Events     map[string]*Expected
	RolledBack map[string]bool // ids of rows that were inserted and rolled back
}

// NewTruth orders the events of each key by their sequence numbers.
func NewTruth(events []*Expected, rolledBack map[string]bool) *Truth {
	t := &Truth{Events: make(map[string]*Expected, len(events)), RolledBack: rolledBack}
	byKey := map[topicKey][]*Expected{}
	for _, e := range events {
		t.Events[e.ID] = e
		k := topicKey{e.Topic, e.Key}
		byKey[k] = append(byKey[k], e)
	}
	for _, list := range byKey {
		slices.SortFunc(list, func(a, b *Expected) int { return cmp.Compare(a.Seq, b.Seq) })
		for i, e := range list {
			e.Rank = i
		}
	}
	return t
}

type topicKey struct{ topic, key string }

// ReadTruth reads the outbox table: what is there was committed, also when the answer to a COMMIT
// was lost. The sequence number is among the headers, because a tombstone has no payload to carry
// it.
func ReadTruth(ctx context.Context, conn *pgx.Conn, table, prefix string, rolledBack map[string]bool) (*Truth, error) {
	rows, err := conn.Query(ctx, `SELECT id::text, aggregatetype, aggregateid, coalesce(type, ''), payload::text, headers::text FROM `+table)
	if err != nil {
		return nil, fmt.Errorf("read outbox: %w", err)
	}
	defer rows.Close()
	var events []*Expected
	for rows.Next() {
		var e Expected
		var aggregateType string
		var payload, headers *string
		if err := rows.Scan(&e.ID, &aggregateType, &e.Key, &e.Type, &payload, &headers); err != nil {
			return nil, fmt.Errorf("read outbox row: %w", err)
		}
		e.Topic = prefix + aggregateType
		if e.Null = payload == nil; !e.Null {
			e.Value = sha256.Sum256([]byte(*payload))
		}
		if err := e.readHeaders(headers); err != nil {
			return nil, fmt.Errorf("read headers of event %s: %w", e.ID, err)
		}
		events = append(events, &e)
	}
	if err := rows.Err(); err != nil {
		return nil, fmt.Errorf("read outbox: %w", err)
	}
	return NewTruth(events, rolledBack), nil
}

func (e *Expected) readHeaders(text *string) error {
	var headers []kgo.RecordHeader
	if text != nil {
		var err error
		if headers, err = OrderedHeaders(*text); err != nil {
			return err
		}
	}
	e.Headers = headerDigest(headers)
	for _, h := range headers {
		if h.Key == "seq" {
			seq, err := strconv.ParseInt(string(h.Value), 10, 64)
			if err != nil {
				return fmt.Errorf("read sequence number: %w", err)
			}
			e.Seq = seq
		}
	}
	return nil
}

// OrderedHeaders reads a JSON object of strings and keeps the order of its members, which is the
// order of the record.
func OrderedHeaders(text string) ([]kgo.RecordHeader, error) {
	decoder := json.NewDecoder(strings.NewReader(text))
	if start, err := decoder.Token(); err != nil || start != json.Delim('{') {
		return nil, fmt.Errorf("read headers: not an object: %w", errors.Join(err))
	}
	var headers []kgo.RecordHeader
	for decoder.More() {
		var pair [2]string
		for i := range pair {
			token, err := decoder.Token()
			if err != nil {
				return nil, fmt.Errorf("read headers: %w", err)
			}
			value, ok := token.(string)
			if !ok {
				return nil, errors.New("read headers: a value is not a string")
			}
			pair[i] = value
		}
		headers = append(headers, kgo.RecordHeader{Key: pair[0], Value: []byte(pair[1])})
	}
	return headers, nil
}

// headerDigest covers names, values and their order; the lengths keep neighbours apart.
func headerDigest(headers []kgo.RecordHeader) [sha256.Size]byte {
	h := sha256.New()
	for _, header := range headers {
		_, _ = fmt.Fprintf(h, "%d:%d:", len(header.Key), len(header.Value)) // a hash never fails
		_, _ = io.WriteString(h, header.Key)
		_, _ = h.Write(header.Value)
	}
	return [sha256.Size]byte(h.Sum(nil))
}
