package servers

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/walpost/walpost/internal/pgserver/child"
)

// kafkaNode is one broker.
type kafkaNode struct {
	program kafkaProgram
	dir     string
	port    int
	vars    []string // added to its environment
	log     *child.Tail
	proc    *child.Process // nil before the first launch
}

func newKafkaNode(program kafkaProgram, parent string, i, port int) *kafkaNode {
	return &kafkaNode{
		program: program, dir: filepath.Join(parent, fmt.Sprintf("node%d", i)), port: port,
		log: child.NewTail(nil, 16<<10),
	}
}

func (n *kafkaNode) address() string { return fmt.Sprintf("127.0.0.1:%d", n.port) }

func (n *kafkaNode) properties() string { return filepath.Join(n.dir, "server.properties") }

func (n *kafkaNode) configure(settings map[string]string) error {
	if err := os.Mkdir(n.dir, 0o700); err != nil {
		return fmt.Errorf("create directory of broker: %w", err)
	}
	var b strings.Builder
	for _, name := range slices.Sorted(maps.Keys(settings)) {
		fmt.Fprintf(&b, "%s=%s\n", name, settings[name])
	}
	if err := os.WriteFile(n.properties(), []byte(b.String()), 0o600); err != nil {
		return fmt.Errorf("configure broker: %w", err)
	}
	return nil
}

func (n *kafkaNode) format(ctx context.Context, clusterID string) error {
	args := n.program.args("kafka.tools.StorageTool", "format", "-t", clusterID, "-c", n.properties())
	cmd := exec.CommandContext(ctx, n.program.java, args...)
	cmd.Dir = n.dir
	if output, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("format directory of broker: %w: %s", err, output)
	}
	return nil
}

// launch runs the broker. It must not be running.
func (n *kafkaNode) launch(javaOptions ...string) error {
	proc, err := child.Start(child.Spec{
		// A library of Java's leaves a file in its temporary directory when it is killed.
		Path: n.program.java, Args: append(append(javaOptions, "-Djava.io.tmpdir="+n.dir),
			n.program.args("kafka.Kafka", n.properties())...),
		Dir: n.dir, Env: append(os.Environ(), n.vars...), Output: n.log,
	})
	if err != nil {
		return fmt.Errorf("start broker: %w", err)
	}
	n.proc = proc
	return nil
}

// waitReady returns when the port for clients accepts.
func (n *kafkaNode) waitReady(ctx context.Context) error {
	ticker := time.NewTicker(50 * time.Millisecond)
	defer ticker.Stop()
	dialer := net.Dialer{Timeout: time.Second}
	for {
		conn, err := dialer.DialContext(ctx, "tcp", n.address())
		if err == nil {
			return conn.Close()
		}
		select {
		case <-n.proc.Done():
			return fmt.Errorf("start broker: it ended at once: %s", n.log)
		case <-ctx.Done():
			return fmt.Errorf("wait for broker to accept clients: %w: %s", ctx.Err(), n.log)
		case <-ticker.C:
		}
	}
}

func (n *kafkaNode) stop(ctx context.Context) error {
	if n.proc == nil {
		return errors.New("stop broker: it was never started")
	}
	n.proc.Signal(syscall.SIGTERM)
	select {
	case <-n.proc.Done():
		return nil
	case <-ctx.Done():
		return fmt.Errorf("wait for broker to stop: %w", ctx.Err())
	}
}

func (n *kafkaNode) kill() {
	if n.proc != nil {
		n.proc.Kill()
	}
}

func (n *kafkaNode) freeze() { n.proc.Signal(syscall.SIGSTOP) }

func (n *kafkaNode) thaw() { n.proc.Signal(syscall.SIGCONT) }
