package main

import (
	"bytes"
	"testing"

	"github.com/walpost/walpost/internal/ops"
)

func TestStatusCountsInTheSingular(t *testing.T) {
	t.Parallel()
	for n, want := range map[int64][]string{
		1: {`^in flight +1 event, 1 B$`, `^kafka +up, 1 reconnect$`},
		2: {`^in flight +2 events, 2 B$`, `^kafka +up, 2 reconnects$`},
	} {
		var out bytes.Buffer
		err := printRelay(&out, "localhost:1", ops.Status{
			InFlightEvents: n, InFlightBytes: n, Up: map[string]bool{"kafka": true}, Reconnects: map[string]uint64{"kafka": uint64(n)},
		})
		if err != nil {
			t.Fatal(err)
		}
		wantAll(t, out.String(), want...)
	}
}
