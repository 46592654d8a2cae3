package servers

import (
	"context"
	"crypto/rand"
	"encoding/base64"
	"errors"
	"fmt"
	"maps"
	"os"
	"strings"
	"sync"
)

// KafkaOptions say which cluster to start.
type KafkaOptions struct {
	Brokers int               // 1 or 3; 0 is 1
	Config  map[string]string // settings of every broker; they win over the defaults
	Heap    string            // of every broker at most, as 2g; empty is little
	Env     []string          // added to the environment of every broker
	// Advertise returns the address that clients are to use instead of a broker's own; nil: its
	// own.
	Advertise func(address string) string
}

// Kafka is a cluster of real brokers from jars, each a broker and a KRaft controller in one.
type Kafka struct {
	program   kafkaProgram
	dir       string
	clusterID string
	nodes     []*kafkaNode
}

// StartKafka fetches the jars if need be and returns when all brokers accept clients. The caller
// owns the cluster and must Close it. progress is told what is being fetched.
func StartKafka(ctx context.Context, opts KafkaOptions, progress func(string)) (*Kafka, error) {
	program, err := findKafka(ctx, progress)
	if err != nil {
		return nil, err
	}
	k, err := newKafka(program, opts)
	if err != nil {
		return nil, err
	}
	if err := k.startAll(ctx); err != nil {
		k.Close()
		return nil, err
	}
	return k, nil
}

// newKafka chooses the ports and writes the configuration; nothing runs yet.
func newKafka(program kafkaProgram, opts KafkaOptions) (*Kafka, error) {
	count := max(opts.Brokers, 1)
	ports, err := FreePorts(2 * count)
	if err != nil {
		return nil, err
	}
	dir, err := os.MkdirTemp("", "walpost-kafka-")
	if err != nil {
		return nil, fmt.Errorf("create directory for kafka: %w", err)
	}
	var id [16]byte
	if _, err := rand.Read(id[:]); err != nil {
		return nil, fmt.Errorf("choose cluster id: %w", err)
	}
	id[0] &= 0x7f // an id that begins with "-" would read as a flag of the format tool
	program.heap = opts.Heap
	k := &Kafka{program: program, dir: dir, clusterID: base64.RawURLEncoding.EncodeToString(id[:])}
	var voters []string
	for i := range count {
		voters = append(voters, fmt.Sprintf("%d@127.0.0.1:%d", i+1, ports[2*i+1]))
	}
	for i := range count {
		node := newKafkaNode(program, dir, i, ports[2*i])
		node.vars = opts.Env
		settings := nodeSettings(i, count, ports[2*i], ports[2*i+1], strings.Join(voters, ","), node.dir)
		if opts.Advertise != nil {
			settings["advertised.listeners"] = "CLIENT://" + opts.Advertise(node.address())
		}
		maps.Copy(settings, opts.Config)
		if err := node.configure(settings); err != nil {
			k.Close()
			return nil, err
		}
		k.nodes = append(k.nodes, node)
	}
	return k, nil
}

// nodeSettings suit tests: internal topics are small, a rebalance does not wait, and a broker that
// was killed may come back after two seconds.
func nodeSettings(i, count, clientPort, controllerPort int, voters, dir string) map[string]string {
	replicas, insync := fmt.Sprint(count), fmt.Sprint(min(count, 2))
	return map[string]string{
		"process.roles":                            "broker,controller",
		"node.id":                                  fmt.Sprint(i + 1),
		"controller.quorum.voters":                 voters,
		"listeners":                                fmt.Sprintf("CLIENT://127.0.0.1:%d,CONTROLLER://127.0.0.1:%d", clientPort, controllerPort),
		"advertised.listeners":                     fmt.Sprintf("CLIENT://127.0.0.1:%d", clientPort),
		"controller.listener.names":                "CONTROLLER",
		"inter.broker.listener.name":               "CLIENT",
		"listener.security.protocol.map":           "CLIENT:PLAINTEXT,CONTROLLER:PLAINTEXT",
		"log.dirs":                                 dir + "/data",
		"auto.create.topics.enable":                "false",
		"num.partitions":                           fmt.Sprint(EventPartitions),
		"default.replication.factor":               replicas,
		"min.insync.replicas":                      insync,
		"offsets.topic.num.partitions":             "1",
		"offsets.topic.replication.factor":         replicas,
		"transaction.state.log.num.partitions":     "1",
		"transaction.state.log.replication.factor": replicas,
		"transaction.state.log.min.isr":            insync,
		"group.initial.rebalance.delay.ms":         "0",
		"broker.session.timeout.ms":                "2000",
		"broker.heartbeat.interval.ms":             "500",
		"log.cleaner.dedupe.buffer.size":           "8388608",
	}
}

func (k *Kafka) startAll(ctx context.Context) error {
	errs := make([]error, len(k.nodes))
	var group sync.WaitGroup
	for i, node := range k.nodes {
		group.Go(func() {
			if errs[i] = node.format(ctx, k.clusterID); errs[i] == nil {
				errs[i] = node.launch()
			}
		})
	}
	group.Wait()
	if err := errors.Join(errs...); err != nil {
		return err
	}
	for _, node := range k.nodes { // one of three does not get ready alone
		if err := node.waitReady(ctx); err != nil {
			return err
		}
	}
	return nil
}

// Brokers are the addresses for clients, also of brokers that are stopped.
func (k *Kafka) Brokers() []string {
	var addresses []string
	for _, node := range k.nodes {
		addresses = append(addresses, node.address())
	}
	return addresses
}

// Stop ends broker i in good order and waits for it.
func (k *Kafka) Stop(ctx context.Context, i int) error { return k.nodes[i].stop(ctx) }

// Kill ends broker i with SIGKILL and waits for it.
func (k *Kafka) Kill(i int) { k.nodes[i].kill() }

// Start runs broker i again on its data and its port, and waits until it accepts clients.
func (k *Kafka) Start(ctx context.Context, i int) error {
	if err := k.nodes[i].launch(); err != nil {
		return err
	}
	return k.nodes[i].waitReady(ctx)
}

// Configure changes settings of broker i, from its next start on.
func (k *Kafka) Configure(i int, settings map[string]string) error {
	f, err := os.OpenFile(k.nodes[i].properties(), os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return fmt.Errorf("configure broker: %w", err)
	}
	for name, value := range settings { // the last of several lines counts
		if _, writeErr := fmt.Fprintf(f, "%s=%s\n", name, value); writeErr != nil {
			err = writeErr
		}
	}
	if err := errors.Join(err, f.Close()); err != nil {
		return fmt.Errorf("configure broker: %w", err)
	}
	return nil
}

// Freeze stops broker i in the middle of whatever it does: its connections stay open and say
// nothing more.
func (k *Kafka) Freeze(i int) { k.nodes[i].freeze() }

// Thaw lets a frozen broker go on.
func (k *Kafka) Thaw(i int) { k.nodes[i].thaw() }

// PIDs are the processes of the brokers that run.
func (k *Kafka) PIDs() []int {
	var pids []int
	for _, node := range k.nodes {
		if node.proc != nil {
			pids = append(pids, node.proc.PID)
		}
	}
	return pids
}

// LogTail is the end of what the brokers printed.
func (k *Kafka) LogTail() string {
	var tails []string
	for i, node := range k.nodes {
		tails = append(tails, fmt.Sprintf("broker %d: %s", i, node.log))
	}
	return strings.Join(tails, "\n")
}

// Close kills all brokers, since combined nodes cannot leave in good order together, and removes
// their data.
func (k *Kafka) Close() {
	for _, node := range k.nodes {
		node.kill()
	}
	_ = os.RemoveAll(k.dir) // a leftover in the temporary directory fails no test
}
