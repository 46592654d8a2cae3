package ops

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"math"
	"net"
	"net/http"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/rs/zerolog"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// fixed is a Source that a test sets.
type fixed struct {
	mu sync.Mutex
	s  Snapshot
}

func (f *fixed) Snapshot() Snapshot {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.s
}

func (f *fixed) set(s Snapshot) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.s = s
}

func full() Snapshot {
	return Snapshot{
		Version: "1.2.3", Source: "7000/walpost", State: "streaming",
		Up: map[string]bool{PeerPostgres: true}, Reconnects: map[string]uint64{PeerKafka: 3},
		InFlightEvents: 4, InFlightBytes: 5, ConfirmedLSN: 0x1_0000_00AB, StoredLSN: 0x1_0000_00AC, ReceivedLSN: 0x1_0000_00AD, RestartLSN: 0xFF,
		ConfirmedLagBytes: 6, RestartLagBytes: 7, SlotSafeWALBytes: 8, OldestUnpublished: 1500 * time.Millisecond,
		Published: map[string]uint64{"outbox.event.order": 9}, ProduceErrors: map[string]uint64{"timeout": 10}, Holder: "pid 42",
	}
}

func unknown() Snapshot {
	nan := math.NaN()
	return Snapshot{
		State: "starting", Reasons: []string{"postgres is away", "kafka is away"},
		ConfirmedLagBytes: nan, RestartLagBytes: nan, SlotSafeWALBytes: math.Inf(1),
	}
}

type setup struct {
	*fixed
	latency prometheus.Histogram
	server  *Server
	client  *http.Client
	t       *testing.T
}

func start(t *testing.T, s Snapshot) *setup {
	t.Helper()
	source, latency := &fixed{s: s}, NewLatency()
	server := New("127.0.0.1:0", source, latency, zerolog.Nop())
	if err := server.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}, Timeout: 10 * time.Second}
	t.Cleanup(func() {
		if err := server.Close(context.Background()); err != nil {
			t.Error(err)
		}
	})
	return &setup{fixed: source, latency: latency, server: server, client: client, t: t}
}

func (s *setup) get(path string) (int, string) {
	s.t.Helper()
	response, err := s.client.Get("http://" + s.server.Addr() + path)
	if err != nil {
		s.t.Fatal(err)
	}
	body, err := io.ReadAll(response.Body)
	if err != nil {
		s.t.Fatal(err)
	}
	if err := response.Body.Close(); err != nil {
		s.t.Fatal(err)
	}
	return response.StatusCode, string(body)
}

func (s *setup) want(path string, code int, body string) {
	s.t.Helper()
	if gotCode, got := s.get(path); gotCode != code || got != body {
		s.t.Errorf("%s: got %d %q, want %d %q", path, gotCode, got, code, body)
	}
}

func TestHealth(t *testing.T) {
	t.Parallel()
	s := start(t, unknown())
	s.want("/livez", 200, "alive\n")
	s.want("/readyz", 503, "postgres is away\nkafka is away\n")
	s.set(full())
	s.want("/livez", 200, "alive\n")
	s.want("/readyz", 200, "ready\n")
	s.want("/", 200, "walpost 1.2.3: streaming\n\n/livez\n/readyz\n/metrics\n/status\n")
	if code, _ := s.get("/other"); code != 404 {
		t.Errorf("an unknown path gives %d", code)
	}
}

func TestMetrics(t *testing.T) {
	t.Parallel()
	s := start(t, full())
	s.latency.Observe(0.003)
	_, body := s.get("/metrics")
	for _, line := range []string{
		`walpost_events_published_total{topic="outbox.event.order"} 9`,
		`walpost_publish_latency_seconds_bucket{le="0.0025"} 0`,
		`walpost_publish_latency_seconds_bucket{le="0.005"} 1`,
		`walpost_publish_latency_seconds_bucket{le="60"} 1`,
		"walpost_publish_latency_seconds_count 1",
		"walpost_in_flight_events 4",
		"walpost_in_flight_bytes 5",
		"walpost_confirmed_lag_bytes 6",
		"walpost_restart_lag_bytes 7",
		"walpost_slot_safe_wal_bytes 8",
		"walpost_oldest_unpublished_seconds 1.5",
		`walpost_reconnects_total{peer="kafka"} 3`,
		`walpost_reconnects_total{peer="postgres"} 0`,
		`walpost_produce_errors_total{reason="timeout"} 10`,
		`walpost_up{peer="postgres"} 1`,
		`walpost_up{peer="kafka"} 0`,
		"go_goroutines ",
	} {
		if !strings.Contains(body, "\n"+line) {
			t.Errorf("no line %q", line)
		}
	}
	s.set(unknown())
	code, body := s.get("/metrics")
	if code != 200 || !strings.Contains(body, "walpost_restart_lag_bytes NaN") || !strings.Contains(body, `walpost_up{peer="postgres"} 0`) {
		t.Errorf("with nothing known: %d\n%s", code, body)
	}
}

func TestTopicsAreBounded(t *testing.T) {
	t.Parallel()
	published := map[string]uint64{"first": 1}
	s := start(t, Snapshot{Published: published})
	s.get("/metrics") // Now "first" has its series, and must keep it.
	many := map[string]uint64{"first": 2}
	for i := range 2 * maxTopics {
		many[fmt.Sprintf("a%04d", i)] = 1
	}
	s.set(Snapshot{Published: many})
	_, body := s.get("/metrics")
	if got := len(regexp.MustCompile(`(?m)^walpost_events_published_total\{`).FindAllString(body, -1)); got != maxTopics+1 {
		t.Errorf("%d series", got)
	}
	for _, line := range []string{
		`walpost_events_published_total{topic="first"} 2`,
		fmt.Sprintf(`walpost_events_published_total{topic="other"} %d`, maxTopics+1),
	} {
		if !strings.Contains(body, line+"\n") {
			t.Errorf("no line %q", line)
		}
	}
}

func TestStatus(t *testing.T) {
	t.Parallel()
	s := start(t, full())
	var got map[string]any
	read := func() {
		t.Helper()
		code, body := s.get("/status")
		got = nil
		if err := json.Unmarshal([]byte(body), &got); err != nil || code != 200 {
			t.Fatalf("%d %v\n%s", code, err, body)
		}
	}
	want := func(values map[string]any) {
		t.Helper()
		for key, value := range values {
			have, there := got[key]
			if !there || fmt.Sprint(have) != fmt.Sprint(value) {
				t.Errorf("%s: got %v, want %v", key, have, value)
			}
		}
	}
	read()
	want(map[string]any{
		"version": "1.2.3", "source": "7000/walpost", "state": "streaming", "ready": true, "reasons": "[]",
		"confirmed_lsn": "1/AB", "stored_lsn": "1/AC", "received_lsn": "1/AD", "restart_lsn": "0/FF",
		"confirmed_lag_bytes": 6, "restart_lag_bytes": 7, "slot_safe_wal_bytes": 8, "oldest_unpublished_seconds": 1.5,
		"in_flight_events": 4, "in_flight_bytes": 5, "published": "map[outbox.event.order:9]", "produce_errors": "map[timeout:10]",
		"up": "map[postgres:true]", "reconnects": "map[kafka:3]", "restart_lsn_holder": "pid 42",
	})
	s.set(unknown())
	read()
	want(map[string]any{
		"state": "starting", "ready": false, "reasons": "[postgres is away kafka is away]", "confirmed_lsn": nil, "restart_lsn": nil,
		"confirmed_lag_bytes": nil, "restart_lag_bytes": nil, "slot_safe_wal_bytes": nil, "up": "map[]", "published": "map[]",
	})
}

func TestListening(t *testing.T) {
	t.Parallel()
	taken, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := taken.Close(); err != nil {
			t.Error(err)
		}
	})
	var logged bytes.Buffer
	busy := New(taken.Addr().String(), &fixed{}, NewLatency(), zerolog.New(&logged))
	if err := busy.Start(t.Context()); err == nil || !strings.Contains(err.Error(), taken.Addr().String()) {
		t.Errorf("a port in use: %v", err)
	}
	if err := busy.Close(t.Context()); err != nil || logged.Len() > 0 {
		t.Errorf("closing it: %v, logged %s", err, logged.String())
	}
	off := New("", &fixed{}, NewLatency(), zerolog.Nop())
	if err := off.Start(t.Context()); err != nil || off.Addr() != "" {
		t.Errorf("off: %v, %q", err, off.Addr())
	}
	if err := off.Close(t.Context()); err != nil {
		t.Error(err)
	}
	on := New("127.0.0.1:0", &fixed{}, NewLatency(), zerolog.New(&logged))
	if err := on.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(logged.String(), on.Addr()) {
		t.Errorf("the address is not logged: %s", logged.String())
	}
	if err := on.Close(t.Context()); err != nil {
		t.Error(err)
	}
	if _, err := net.DialTimeout("tcp", on.Addr(), time.Second); err == nil {
		t.Error("it still listens after Close")
	}
}

// stuck is a Source whose first Snapshot waits, as a request that is under way when the relay
// stops.
type stuck struct{ entered, release chan struct{} }

func (s *stuck) Snapshot() Snapshot {
	close(s.entered)
	<-s.release
	return Snapshot{}
}

func TestCloseCutsOff(t *testing.T) {
	t.Parallel()
	source := &stuck{entered: make(chan struct{}), release: make(chan struct{})}
	server := New("127.0.0.1:0", source, NewLatency(), zerolog.Nop())
	if err := server.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	conn, err := net.Dial("tcp", server.Addr())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := io.WriteString(conn, "GET /readyz HTTP/1.1\r\nHost: x\r\n\r\n"); err != nil {
		t.Fatal(err)
	}
	<-source.entered
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := server.Close(ctx); err == nil {
		t.Error("a request was cut off, and Close does not say so")
	}
	close(source.release)
	if n, err := conn.Read(make([]byte, 1)); err == nil {
		t.Errorf("read %d bytes after Close", n)
	}
	if err := conn.Close(); err != nil {
		t.Error(err)
	}
}
