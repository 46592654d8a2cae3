// Command bench measures walpost on servers of its own: what it costs, and how close it comes to
// what Postgres and Kafka allow. Everything that is compared takes turns in one run, because a
// machine is never the same twice.
package main

import (
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/alecthomas/kong"

	"github.com/walpost/walpost/integration/servers"
	"github.com/walpost/walpost/internal/config"
)

// options are the flags of the program.
type options struct {
	Only     string            `default:"" help:"Measure only what matches this regular expression; see --list."`
	List     bool              `help:"List what there is to measure."`
	Growth   bool              `help:"Also measure how the cost grows with every dimension of the work: half an hour more."`
	Rounds   int               `default:"5" help:"Turns of everything that is compared; the table has the medians."`
	Scale    int               `default:"1" help:"Divide the rows of every backlog by this, for a try."`
	Postgres int               `default:"18" help:"Major version of Postgres where the case does not say."`
	KFake    bool              `name:"kfake" help:"Use the fake broker instead of Apache Kafka: the cost of the relay alone."`
	Set      []string          `sep:"none" placeholder:"NAME=VALUE" help:"A variable for every relay, such as WALPOST_KAFKA_LINGER=0s; may be repeated."`
	Kafka    map[string]string `placeholder:"NAME=VALUE" help:"A setting of the brokers, such as log.flush.interval.messages=1; may be repeated."`
	JSON     string            `name:"json" placeholder:"FILE" help:"Write the measurements there as well, one JSON object for each."`
}

func main() {
	if servers.PlayFake() {
		return
	}
	testing.Init() // the harness asks whether a test is short
	must(flag.CommandLine.Parse(nil))
	var opts options
	kong.Parse(&opts, kong.Name("bench"), kong.Description("Measures walpost on servers of its own."))
	if err := run(opts); err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

func run(opts options) error {
	only, err := regexp.Compile(opts.Only)
	if err != nil {
		return fmt.Errorf("read --only: %w", err)
	}
	if opts.Rounds < 1 || opts.Scale < 1 {
		return errors.New("--rounds and --scale are 1 or more")
	}
	for _, entry := range opts.Set {
		if !strings.HasPrefix(entry, "WALPOST_") || !strings.Contains(entry, "=") {
			return fmt.Errorf("--set %s: wants WALPOST_NAME=VALUE", entry)
		}
	}
	if unknown, err := config.UnknownVariables(opts.Set); err != nil || len(unknown) > 0 {
		return errors.Join(err, fmt.Errorf("--set: no setting of walpost: %s", strings.Join(unknown, ", ")))
	}
	out := &report{}
	if opts.JSON != "" {
		if out.json, err = os.Create(filepath.Clean(opts.JSON)); err != nil {
			return fmt.Errorf("create file of measurements: %w", err)
		}
		defer func() { _ = out.json.Close() }()
	}
	defer servers.Close()
	if !opts.List {
		out.machine()
	}
	var failed []string
	found := false
	for _, c := range cases(opts) {
		if !only.MatchString(c.name) {
			continue
		}
		found = true
		if opts.List {
			fmt.Println(c.name)
			continue
		}
		h := &host{name: c.name}
		if err := h.play(func() { c.measure(h, opts, out) }); err != nil {
			fmt.Fprintf(os.Stderr, "bench: %s: %v\n", c.name, err)
			failed = append(failed, c.name)
		}
	}
	if !found {
		return fmt.Errorf("nothing is called %q: --list has the names, with --growth more of them", opts.Only)
	}
	if len(failed) > 0 {
		return fmt.Errorf("not measured: %s", strings.Join(failed, "; "))
	}
	return nil
}
