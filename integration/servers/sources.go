package servers

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"time"

	"github.com/walpost/walpost/internal/pgserver"
)

// Postgres is a server wherever it runs.
type Postgres struct {
	Local   *pgserver.Server // nil if it does not run on this machine as our child
	Address string           // of the database postgres
	Version string
}

// Brokers are those that tests share, wherever they run.
type Brokers struct {
	Cluster *Kafka // nil if they do not run as our children
	Seeds   []string
}

// StartTimeout is long enough to fetch everything once over a slow line.
const StartTimeout = 10 * time.Minute

// sharedSettings: what a kill -9 of the server leaves in the page cache of the machine survives
// without fsync.
var sharedSettings = map[string]string{
	"fsync": "off", "max_replication_slots": "50", "max_wal_senders": "50",
	"max_connections": "200",
}

// SharedPostgres starts the server of a major version that all tests share: from a container, else
// from local programs, else at the address in WALPOST_TEST_POSTGRES_<major>.
func SharedPostgres(ctx context.Context, major int) (*Postgres, error) {
	return shared.sharedPostgres(ctx, major)
}

func (r *registry) sharedPostgres(ctx context.Context, major int) (*Postgres, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if p := r.postgres[major]; p != nil {
		return p, nil
	}
	var errs []error
	for _, way := range []func(context.Context, int) (*Postgres, error){
		r.postgresContainer, r.postgresLocal, r.postgresAddress,
	} {
		p, err := way(ctx, major)
		if err == nil {
			r.postgres[major] = p
			return p, nil
		}
		errs = append(errs, err)
	}
	return nil, fmt.Errorf("find a postgres %d: %w", major, errors.Join(errs...))
}

func (r *registry) postgresLocal(ctx context.Context, major int) (*Postgres, error) {
	p, err := StartPostgres(ctx, major, sharedSettings)
	if err != nil {
		return nil, err
	}
	r.closers = append(r.closers, p.Local.Close)
	r.usedLocked("postgres %s (local programs)", p.Version)
	return p, nil
}

func (r *registry) postgresAddress(_ context.Context, major int) (*Postgres, error) {
	name := fmt.Sprintf("WALPOST_TEST_POSTGRES_%d", major)
	address := os.Getenv(name)
	if address == "" {
		return nil, fmt.Errorf("%s is not set", name)
	}
	r.usedLocked("postgres %d (%s)", major, name)
	return &Postgres{Address: address, Version: fmt.Sprint(major)}, nil
}

// StartPostgres runs a server from local programs. The caller closes it.
func StartPostgres(ctx context.Context, major int, settings map[string]string, vars ...string) (*Postgres, error) {
	local, err := pgserver.Start(ctx, pgserver.Options{Major: major, Settings: settings, Env: vars, Progress: Progress})
	if err != nil {
		return nil, err
	}
	return &Postgres{Local: local, Address: local.URL("postgres"), Version: local.Version()}, nil
}

// SharedBroker starts the one broker that most tests share, in the same order of sources.
func SharedBroker(ctx context.Context) (*Brokers, error) { return shared.sharedBroker(ctx) }

func (r *registry) sharedBroker(ctx context.Context) (*Brokers, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.kafka != nil {
		return r.kafka, nil
	}
	var errs []error
	for _, way := range []func(context.Context) (*Brokers, error){r.kafkaContainer, r.kafkaLocal, r.kafkaAddress} {
		k, err := way(ctx)
		if err == nil {
			r.kafka = k
			return k, nil
		}
		errs = append(errs, err)
	}
	return nil, fmt.Errorf("find a kafka: %w", errors.Join(errs...))
}

func (r *registry) kafkaLocal(ctx context.Context) (*Brokers, error) {
	cluster, err := StartKafka(ctx, KafkaOptions{}, Progress)
	if err != nil {
		return nil, err
	}
	r.closers = append(r.closers, func() error { cluster.Close(); return nil })
	r.usedLocked("kafka %s (jars, 1 broker)", KafkaVersion)
	return &Brokers{Cluster: cluster, Seeds: cluster.Brokers()}, nil
}

func (r *registry) kafkaAddress(context.Context) (*Brokers, error) {
	addresses := os.Getenv("WALPOST_TEST_KAFKA")
	if addresses == "" {
		return nil, errors.New("WALPOST_TEST_KAFKA is not set")
	}
	r.usedLocked("kafka (WALPOST_TEST_KAFKA)")
	return &Brokers{Seeds: strings.Split(addresses, ",")}, nil
}
