package servers

import (
	"cmp"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"

	"github.com/walpost/walpost/internal/pgserver"
)

// KafkaVersion is the release that the tests run, from jars and as a container.
const KafkaVersion = "4.3.1"

// kafkaProject lists what the broker needs with exact versions. The tools format the log directory
// and bring the rest of what a distribution has on its class path: with fewer jars three brokers do
// not elect each other.
const kafkaProject = `<project xmlns="http://maven.apache.org/POM/4.0.0">
  <modelVersion>4.0.0</modelVersion>
  <groupId>walpost</groupId>
  <artifactId>kafka-jars</artifactId>
  <version>1</version>
  <dependencies>
    <dependency><groupId>org.apache.kafka</groupId><artifactId>kafka_2.13</artifactId><version>` + KafkaVersion + `</version></dependency>
    <dependency><groupId>org.apache.kafka</groupId><artifactId>kafka-tools</artifactId><version>` + KafkaVersion + `</version></dependency>
    <dependency><groupId>org.apache.logging.log4j</groupId><artifactId>log4j-slf4j-impl</artifactId><version>2.25.4</version></dependency>
  </dependencies>
</project>
`

// kafkaProgram is how to run a class of Kafka.
type kafkaProgram struct {
	java      string
	classPath string
	archive   string // class data archive, which halves the start; empty if there is none
	heap      string // at most; empty is enough for all but huge records
}

// findKafka takes the jars from the cache, or fetches them once with Maven.
func findKafka(ctx context.Context, progress func(string)) (kafkaProgram, error) {
	java, err := exec.LookPath("java")
	if err != nil {
		return kafkaProgram{}, fmt.Errorf("find java for kafka: %w", err)
	}
	cache, err := pgserver.CacheDir()
	if err != nil {
		return kafkaProgram{}, err
	}
	name := "kafka-" + KafkaVersion
	dir := filepath.Join(cache, name)
	if _, err := os.Stat(dir); err != nil {
		progress("fetching Apache Kafka " + KafkaVersion + " with Maven (about 55 MB, once)")
		if dir, err = pgserver.Install(cache, name, func(dir string) error { return fetchKafka(ctx, dir) }); err != nil {
			return kafkaProgram{}, err
		}
	}
	jars, err := filepath.Glob(filepath.Join(dir, "*.jar"))
	if err != nil || len(jars) == 0 {
		return kafkaProgram{}, fmt.Errorf("list jars of kafka in %s: found %d: %w", dir, len(jars), err)
	}
	slices.Sort(jars)
	program := kafkaProgram{java: java, classPath: strings.Join(jars, string(filepath.ListSeparator))}
	return program.withArchive(ctx, cache), nil
}

func fetchKafka(ctx context.Context, dir string) error {
	project, err := os.MkdirTemp("", "walpost-maven-")
	if err != nil {
		return fmt.Errorf("create project directory: %w", err)
	}
	defer func() { _ = os.RemoveAll(project) }()
	if err := os.WriteFile(filepath.Join(project, "pom.xml"), []byte(kafkaProject), 0o600); err != nil {
		return fmt.Errorf("write project: %w", err)
	}
	cmd := exec.CommandContext(ctx, "mvn", "-q", "-B", "org.apache.maven.plugins:maven-dependency-plugin:3.6.1:copy-dependencies",
		"-DincludeScope=runtime", "-DoutputDirectory="+dir)
	cmd.Dir = project
	if output, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("fetch kafka %s with Maven: %w: %s", KafkaVersion, err, output)
	}
	return nil
}

// args are the arguments of java for a class, in a small and quickly started virtual machine.
func (p kafkaProgram) args(class string, args ...string) []string {
	options := []string{
		"-Xmx" + cmp.Or(p.heap, "256m"), "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-Xshare:auto", "-Xlog:disable", "-Dlog4j2.level=WARN",
	}
	if p.archive != "" {
		options = append(options, "-XX:SharedArchiveFile="+p.archive)
	}
	return slices.Concat(options, []string{"-cp", p.classPath, class}, args)
}
