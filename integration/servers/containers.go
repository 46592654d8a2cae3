package servers

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"sync"
	"time"

	"github.com/testcontainers/testcontainers-go"
	"github.com/testcontainers/testcontainers-go/wait"
)

// errNoDocker says that no engine answered quickly.
var errNoDocker = errors.New("no Docker engine answers")

// dockerAnswers asks the engine of this machine once. An engine elsewhere is left alone: addresses
// inside its containers would not be those of the tests.
var dockerAnswers = sync.OnceValue(func() error {
	if host := os.Getenv("DOCKER_HOST"); host != "" && !strings.HasPrefix(host, "unix://") {
		return fmt.Errorf("DOCKER_HOST is not on this machine: %w", errNoDocker)
	}
	if _, err := os.Stat("/var/run/docker.sock"); err != nil && os.Getenv("DOCKER_HOST") == "" {
		return errNoDocker
	}
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Second)
	defer cancel()
	provider, err := testcontainers.NewDockerProvider()
	if err != nil {
		return fmt.Errorf("%w: %w", errNoDocker, err)
	}
	if err := errors.Join(provider.Health(ctx), provider.Close()); err != nil {
		return fmt.Errorf("%w: %w", errNoDocker, err)
	}
	return nil
})

// container starts one and stops it with the shared servers.
func (r *registry) container(ctx context.Context, image string,
	options ...testcontainers.ContainerCustomizer,
) (*testcontainers.DockerContainer, error) {
	if err := dockerAnswers(); err != nil {
		return nil, err
	}
	c, err := testcontainers.Run(ctx, image, options...)
	if c != nil {
		r.closers = append(r.closers, func() error { return testcontainers.TerminateContainer(c) })
	}
	if err != nil {
		return nil, fmt.Errorf("run container %s: %w", image, err)
	}
	return c, nil
}

func (r *registry) postgresContainer(ctx context.Context, major int) (*Postgres, error) {
	const port = "5432/tcp"
	image := fmt.Sprintf("postgres:%d", major)
	command := []string{"postgres", "-c", "wal_level=logical"}
	for name, value := range sharedSettings {
		command = append(command, "-c", name+"="+value)
	}
	c, err := r.container(ctx, image,
		testcontainers.WithEnv(map[string]string{"POSTGRES_HOST_AUTH_METHOD": "trust"}),
		testcontainers.WithCmd(command...),
		testcontainers.WithExposedPorts(port),
		// The image starts once to initialise and then for good.
		testcontainers.WithWaitStrategy(wait.ForLog("ready to accept connections").WithOccurrence(2),
			wait.ForListeningPort(port)),
	)
	if err != nil {
		return nil, err
	}
	endpoint, err := c.PortEndpoint(ctx, port, "")
	if err != nil {
		return nil, fmt.Errorf("find port of container %s: %w", image, err)
	}
	r.usedLocked("postgres %d (container)", major)
	return &Postgres{
		Address: "postgres://postgres@" + endpoint + "/postgres?sslmode=disable",
		Version: fmt.Sprint(major),
	}, nil
}

// kafkaContainer: the address that a broker gives to its clients is known only once its port is
// mapped. So the container waits for a script, which is written then.
func (r *registry) kafkaContainer(ctx context.Context) (*Brokers, error) {
	const port, script = "9092/tcp", "/tmp/walpost-start.sh"
	c, err := r.container(ctx, "apache/kafka:"+KafkaVersion,
		testcontainers.WithExposedPorts(port),
		testcontainers.WithEntrypoint("sh", "-c", "while [ ! -f "+script+" ]; do sleep 0.1; done; exec sh "+script),
		testcontainers.WithEnv(map[string]string{
			"KAFKA_NODE_ID":                                  "1",
			"KAFKA_PROCESS_ROLES":                            "broker,controller",
			"KAFKA_CONTROLLER_QUORUM_VOTERS":                 "1@localhost:9094",
			"KAFKA_LISTENERS":                                "CLIENT://0.0.0.0:9092,INTERNAL://localhost:9093,CONTROLLER://localhost:9094",
			"KAFKA_LISTENER_SECURITY_PROTOCOL_MAP":           "CLIENT:PLAINTEXT,INTERNAL:PLAINTEXT,CONTROLLER:PLAINTEXT",
			"KAFKA_CONTROLLER_LISTENER_NAMES":                "CONTROLLER",
			"KAFKA_INTER_BROKER_LISTENER_NAME":               "INTERNAL",
			"KAFKA_NUM_PARTITIONS":                           fmt.Sprint(EventPartitions),
			"KAFKA_AUTO_CREATE_TOPICS_ENABLE":                "false",
			"KAFKA_OFFSETS_TOPIC_REPLICATION_FACTOR":         "1",
			"KAFKA_TRANSACTION_STATE_LOG_REPLICATION_FACTOR": "1",
			"KAFKA_TRANSACTION_STATE_LOG_MIN_ISR":            "1",
		}),
	)
	if err != nil {
		return nil, err
	}
	endpoint, err := c.PortEndpoint(ctx, port, "")
	if err != nil {
		return nil, fmt.Errorf("find port of kafka container: %w", err)
	}
	start := "export KAFKA_ADVERTISED_LISTENERS=CLIENT://" + endpoint + ",INTERNAL://localhost:9093\nexec /etc/kafka/docker/run\n"
	if err := c.CopyToContainer(ctx, []byte(start), script, 0o755); err != nil {
		return nil, fmt.Errorf("start kafka in its container: %w", err)
	}
	if err := wait.ForLog("Kafka Server started").WaitUntilReady(ctx, c); err != nil {
		return nil, fmt.Errorf("wait for kafka in its container: %w", err)
	}
	r.usedLocked("kafka %s (container, 1 broker)", KafkaVersion)
	return &Brokers{Seeds: []string{endpoint}}, nil
}
