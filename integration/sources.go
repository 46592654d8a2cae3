package integration

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/walpost/walpost/internal/pgserver"
)

// registry holds the servers that all tests of a binary share, and what is to be said about them at the end. Each is
// started by the first test that needs it and stopped by close.
type registry struct {
	mu        sync.Mutex
	postgres  map[int]*postgres
	kafka     *sharedKafka
	used      map[string]bool   // what served, for the summary
	lacking   map[string]string // test without its servers -> why
	untested  map[string]string // test that was skipped for another reason -> why
	closers   []func() error
	announced map[string]bool
}

var servers = &registry{
	postgres: map[int]*postgres{}, used: map[string]bool{}, lacking: map[string]string{}, untested: map[string]string{}, announced: map[string]bool{},
}

// postgres is a server wherever it runs.
type postgres struct {
	local   *pgserver.Server // nil if it does not run on this machine as our child
	address string           // of the database postgres
	version string
}

type sharedKafka struct {
	cluster *Kafka // nil if it does not run as our child
	brokers []string
}

// startTimeout covers fetching everything once over a slow line.
const startTimeout = 10 * time.Minute

// sharedSettings: what a kill -9 of the server leaves in the page cache of the machine survives without fsync.
var sharedSettings = map[string]string{"fsync": "off", "max_replication_slots": "50", "max_wal_senders": "50", "max_connections": "200"}

// sharedPostgres starts the server of a major version that all tests share: from a container, else from local programs,
// else at the address in WALPOST_TEST_POSTGRES_<major>.
func (r *registry) sharedPostgres(ctx context.Context, major int) (*postgres, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if p := r.postgres[major]; p != nil {
		return p, nil
	}
	var errs []error
	for _, way := range []func(context.Context, int) (*postgres, error){r.postgresContainer, r.postgresLocal, r.postgresAddress} {
		p, err := way(ctx, major)
		if err == nil {
			r.postgres[major] = p
			return p, nil
		}
		errs = append(errs, err)
	}
	return nil, fmt.Errorf("find a postgres %d: %w", major, errors.Join(errs...))
}

func (r *registry) postgresLocal(ctx context.Context, major int) (*postgres, error) {
	p, err := startPostgres(ctx, major, sharedSettings)
	if err != nil {
		return nil, err
	}
	r.closers = append(r.closers, p.local.Close)
	r.usedLocked("postgres %s (local programs)", p.version)
	return p, nil
}

func (r *registry) postgresAddress(_ context.Context, major int) (*postgres, error) {
	name := fmt.Sprintf("WALPOST_TEST_POSTGRES_%d", major)
	address := os.Getenv(name)
	if address == "" {
		return nil, fmt.Errorf("%s is not set", name)
	}
	r.usedLocked("postgres %d (%s)", major, name)
	return &postgres{address: address, version: fmt.Sprint(major)}, nil
}

// startPostgres runs a server from local programs; the caller closes it.
func startPostgres(ctx context.Context, major int, settings map[string]string, vars ...string) (*postgres, error) {
	local, err := pgserver.Start(ctx, pgserver.Options{Major: major, Settings: settings, Env: vars, Progress: progress})
	if err != nil {
		return nil, err
	}
	return &postgres{local: local, address: local.URL("postgres"), version: local.Version()}, nil
}

// sharedBroker starts the one broker that most tests share, in the same order of sources.
func (r *registry) sharedBroker(ctx context.Context) (*sharedKafka, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.kafka != nil {
		return r.kafka, nil
	}
	var errs []error
	for _, way := range []func(context.Context) (*sharedKafka, error){r.kafkaContainer, r.kafkaLocal, r.kafkaAddress} {
		k, err := way(ctx)
		if err == nil {
			r.kafka = k
			return k, nil
		}
		errs = append(errs, err)
	}
	return nil, fmt.Errorf("find a kafka: %w", errors.Join(errs...))
}

func (r *registry) kafkaLocal(ctx context.Context) (*sharedKafka, error) {
	cluster, err := StartKafka(ctx, KafkaOptions{}, progress)
	if err != nil {
		return nil, err
	}
	r.closers = append(r.closers, func() error { cluster.Close(); return nil })
	r.usedLocked("kafka %s (jars, 1 broker)", kafkaVersion)
	return &sharedKafka{cluster: cluster, brokers: cluster.Brokers()}, nil
}

func (r *registry) kafkaAddress(context.Context) (*sharedKafka, error) {
	addresses := os.Getenv("WALPOST_TEST_KAFKA")
	if addresses == "" {
		return nil, errors.New("WALPOST_TEST_KAFKA is not set")
	}
	r.usedLocked("kafka (WALPOST_TEST_KAFKA)")
	return &sharedKafka{brokers: strings.Split(addresses, ",")}, nil
}

func (r *registry) usedLocked(format string, args ...any) {
	what := fmt.Sprintf(format, args...)
	if !r.used[what] {
		r.used[what] = true
		progress("using " + what)
	}
}

func (r *registry) note(format string, args ...any) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.usedLocked(format, args...)
}

// missing skips a test whose servers cannot be had, and remembers it for the summary. Where CI is set it fails the test
// instead: there a run that proved nothing must not look green.
func (r *registry) missing(t testing.TB, err error) {
	t.Helper()
	r.mu.Lock()
	r.lacking[t.Name()] = err.Error()
	r.mu.Unlock()
	if inCI() {
		t.Fatal(err)
	}
	t.Skip(err)
}

func inCI() bool { return os.Getenv("CI") != "" }

// Close stops what the harness shares among all that use it, and removes what it has built.
func Close() { servers.close() }

// close stops the shared servers, the last one first.
func (r *registry) close() {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, closer := range slices.Backward(r.closers) {
		if err := closer(); err != nil {
			progress(err.Error())
		}
	}
	r.closers = nil
}

// summary says in one or more lines what the tests ran against, and which could not run: they failed where CI is set, and
// were skipped elsewhere.
func (r *registry) summary() string {
	r.mu.Lock()
	defer r.mu.Unlock()
	used := slices.Sorted(maps.Keys(r.used))
	if len(used) == 0 {
		used = []string{"no server"}
	}
	outcome := "skipped"
	if inCI() {
		outcome = "FAILED"
	}
	summary := "walpost integration: ran against " + strings.Join(used, ", ")
	if len(r.lacking) == 0 {
		summary += "; " + outcome + " for want of a server: none"
	} else {
		summary += fmt.Sprintf("; %s for want of a server: %d", outcome, len(r.lacking)) + reasons(r.lacking)
	}
	if len(r.untested) > 0 {
		summary += fmt.Sprintf("\nwalpost integration: NOT TESTED: %d", len(r.untested)) + reasons(r.untested)
	}
	return summary
}

func reasons(byTest map[string]string) string {
	text := ""
	for _, test := range slices.Sorted(maps.Keys(byTest)) {
		text += fmt.Sprintf("\n  %s: %s", test, strings.ReplaceAll(byTest[test], "\n", "; "))
	}
	return text
}

// progress goes to standard error at once: a fetch of a minute must not look like a test that hangs.
func progress(what string) { fmt.Fprintln(os.Stderr, "walpost integration:", what) }
