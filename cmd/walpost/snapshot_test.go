package main

import (
	"io"
	"testing"

	"github.com/rs/zerolog"

	"github.com/walpost/walpost/internal/ops"
	"github.com/walpost/walpost/internal/relay"
)

// A relay that has not seen a server yet has every series that an alert on an increase needs.
func TestSeriesOfANewRelay(t *testing.T) {
	t.Parallel()
	server := ops.New("127.0.0.1:0", snapshots{relay.New(relay.Config{Log: zerolog.Nop()})}, ops.NewLatency(), zerolog.Nop())
	if err := server.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	response, err := get(t.Context(), server.Addr(), "/metrics")
	if err != nil {
		t.Fatal(err)
	}
	body, err := io.ReadAll(response.Body)
	if err != nil {
		t.Fatal(err)
	}
	_ = response.Body.Close() // it was read to the end
	for _, reason := range []string{"too_large", "not_authorized", "illegal_topic", "bad_headers", "refused", "data_loss", "outage", "other"} {
		wantAll(t, string(body), `^walpost_produce_errors_total\{reason="`+reason+`"\} 0$`)
	}
	if err := server.Close(t.Context()); err != nil {
		t.Error(err)
	}
}
