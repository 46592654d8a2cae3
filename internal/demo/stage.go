package demo

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/twmb/franz-go/pkg/kfake"

	"github.com/walpost/walpost/internal/config"
	"github.com/walpost/walpost/internal/pgserver"
)

// stage is everything that the demo stands on, in the order in which it is built.
type stage struct {
	opts   Options
	tools  Tools
	screen *screen

	cfg      config.Config // the options' with the addresses of the embedded servers
	broker   *kfake.Cluster
	postgres *pgserver.Server
	conn     *pgx.Conn // of the service
	reserved bool      // the objects in Postgres are ours
	topics   *topicSet
	ledger   *ledger
	consumer *consumer
}

// build starts what is embedded and creates everything. After an error clear removes what was built
// so far.
func (s *stage) build(ctx context.Context) error {
	s.cfg = s.opts.Config
	if err := s.startPostgres(ctx); err != nil {
		return err
	}
	if err := s.startKafka(); err != nil {
		return err
	}
	if err := s.connect(ctx); err != nil {
		return err
	}
	s.screen.line("\nSetting up, as `walpost init` does:")
	if err := reserve(ctx, s.conn); err != nil {
		return err
	}
	s.reserved = true
	if err := s.tools.SetUp(ctx, s.cfg, indented{s.screen}); err != nil {
		return err
	}
	source, err := sourceOf(ctx, s.conn)
	if err != nil {
		return err
	}
	if s.topics, err = newTopicSet(&s.cfg); err != nil {
		return err
	}
	if err := s.topics.create(ctx, s.opts.Partitions, source); err != nil {
		return err
	}
	s.screen.line("  topics %s: %s\n", strings.Join(topics, ", "), plural(s.topics.partitions, "partition"))
	s.ledger = newLedger()
	if s.consumer, err = newConsumer(&s.cfg, s.topics.ends, source, s.ledger, s.screen); err != nil {
		return err
	}
	return s.chooseAddress()
}

func (s *stage) startPostgres(ctx context.Context) error {
	if s.cfg.PostgresURL != "" {
		s.screen.line("  Postgres  yours: the demo creates schema, slot and publication %s in it "+
			"and removes them at the end", Name)
		return nil
	}
	server, err := pgserver.Start(ctx, pgserver.Options{
		Major: s.opts.PostgresMajor, Progress: func(text string) { s.screen.line("  %s", text) },
	})
	if err != nil {
		return err
	}
	s.postgres, s.cfg.PostgresURL = server, server.URL("postgres")
	s.screen.line("  Postgres  %s, embedded and temporary: psql %s", server.Version(), s.cfg.PostgresURL)
	return nil
}

func (s *stage) startKafka() error {
	if len(s.cfg.KafkaBrokers) > 0 {
		s.screen.line("  Kafka     yours: the demo creates the topics demo.* that are missing " +
			"and removes them at the end")
		return nil
	}
	broker, err := kfake.NewCluster(kfake.NumBrokers(1), kfake.DefaultNumPartitions(s.opts.Partitions))
	if err != nil {
		return fmt.Errorf("start embedded broker: %w", err)
	}
	s.broker, s.cfg.KafkaBrokers = broker, broker.ListenAddrs()
	s.screen.line("  Kafka     embedded broker that speaks its protocol: %s", strings.Join(s.cfg.KafkaBrokers, ","))
	return nil
}

func (s *stage) connect(ctx context.Context) error {
	settings, err := s.cfg.PostgresConnConfig()
	if err != nil {
		return err
	}
	settings.RuntimeParams["application_name"] = "walpost demo: the order service"
	if s.conn, err = pgx.ConnectConfig(ctx, settings); err != nil {
		return fmt.Errorf("connect to Postgres: %w", err)
	}
	return nil
}

// chooseAddress replaces port 0 by a free port, because the demo shows the address and asks the
// relay there. If another process takes the port in between, the relay says so.
func (s *stage) chooseAddress() error {
	host, port, err := net.SplitHostPort(s.cfg.HTTPAddr)
	if err == nil && port == "0" {
		listener, err := net.Listen("tcp", net.JoinHostPort(host, "0"))
		if err != nil {
			return fmt.Errorf("find a free port for the relay's HTTP server: %w", err)
		}
		s.cfg.HTTPAddr = listener.Addr().String()
		if err := listener.Close(); err != nil {
			return fmt.Errorf("find a free port for the relay's HTTP server: %w", err)
		}
	}
	if s.cfg.HTTPAddr != "" {
		s.screen.line("The relay answers at http://%s/status, /readyz and /metrics.", s.cfg.HTTPAddr)
	}
	return nil
}

// clear removes what build made, last things first.
func (s *stage) clear(ctx context.Context) error {
	var errs []error
	if s.consumer != nil {
		s.consumer.close()
	}
	if s.topics != nil {
		if s.broker == nil {
			errs = append(errs, s.topics.remove(ctx))
		}
		s.topics.close()
	}
	if s.conn != nil {
		closing, cancel := context.WithTimeout(ctx, time.Second)
		_ = s.conn.Close(closing) // what it did is committed or rolled back
		cancel()
	}
	if s.reserved && s.postgres == nil {
		errs = append(errs, s.giveBack(ctx))
	}
	if s.broker != nil {
		s.broker.Close()
	}
	if s.postgres != nil {
		errs = append(errs, s.postgres.Close())
	}
	return errors.Join(errs...)
}

// giveBack removes the objects over a connection of its own: that of the service may be broken.
func (s *stage) giveBack(ctx context.Context) error {
	if err := s.connect(ctx); err != nil {
		return fmt.Errorf("remove slot, publication and schema %s: %w; the next demo in this database removes them, "+
			"and until then Postgres retains WAL for the slot", Name, err)
	}
	err := drop(ctx, s.conn)
	_ = s.conn.Close(ctx) // everything is committed
	if err != nil {
		return fmt.Errorf("%w; remove slot, publication and schema %s by hand: Postgres retains WAL for "+
			"the slot", err, Name)
	}
	return nil
}
