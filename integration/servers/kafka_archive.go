package servers

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"

	"github.com/walpost/walpost/internal/pgserver"
)

const archiveFile = "kafka.jsa"

// withArchive adds the class data archive, which one broker writes when it stops. It belongs to one
// Java and one class path. Kafka runs without it as well, only slower, so a failure is not an
// error.
func (p kafkaProgram) withArchive(ctx context.Context, cache string) kafkaProgram {
	version, err := exec.CommandContext(ctx, p.java, "-version").CombinedOutput()
	if err != nil {
		return p
	}
	id := sha256.Sum256(append(version, p.classPath...))
	name := "kafka-classes-" + hex.EncodeToString(id[:6])
	dir := filepath.Join(cache, name)
	if _, err := os.Stat(dir); err != nil {
		if dir, err = pgserver.Install(cache, name, func(dir string) error { return p.writeArchive(ctx, dir) }); err != nil {
			return p
		}
	}
	p.archive = filepath.Join(dir, archiveFile)
	return p
}

func (p kafkaProgram) writeArchive(ctx context.Context, dir string) error {
	k, err := newKafka(p, KafkaOptions{Brokers: 1})
	if err != nil {
		return err
	}
	defer k.Close()
	node := k.nodes[0]
	if err := node.format(ctx, k.clusterID); err != nil {
		return err
	}
	archive := filepath.Join(dir, archiveFile)
	if err := node.launch("-XX:ArchiveClassesAtExit=" + archive); err != nil {
		return err
	}
	if err := node.waitReady(ctx); err != nil {
		return err
	}
	node.proc.Signal(syscall.SIGTERM)
	select {
	case <-node.proc.Done():
	case <-ctx.Done():
		return ctx.Err()
	}
	_, err = os.Stat(archive)
	return err
}
