// Command walpost relays the events of a transactional outbox in Postgres to Kafka.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"time"

	"github.com/alecthomas/kong"

	"github.com/walpost/walpost/cdc"
	"github.com/walpost/walpost/internal/config"
	"github.com/walpost/walpost/internal/relay"
)

// The exit codes are a contract.
const (
	exitOK     = 0 // a clean stop
	exitFailed = 1 // an unexpected failure
	exitUsage  = 2 // bad usage or configuration
	exitHalt   = 3 // stopped to protect data: an operator must act
)

type commands struct {
	Run     runCommand     `cmd:"" help:"Relay events from the outbox to Kafka, until told to stop."`
	Init    initCommand    `cmd:"" help:"Create what is missing of outbox table, publication and slot."`
	Status  statusCommand  `cmd:"" help:"Show how the relay and its slot are doing."`
	Demo    demoCommand    `cmd:"" help:"Watch events flow from a temporary Postgres to a temporary Kafka broker."`
	Version versionCommand `cmd:"" help:"Show the version."`

	ShowVersion kong.VersionFlag `name:"version" help:"Show the version."`
}

// command is what every command can do.
type command interface {
	execute(ctx context.Context, stdout, stderr io.Writer) error
}

func main() {
	ctx, stop := signalContext()
	code := run(ctx, os.Args[1:], os.Stdout, os.Stderr)
	stop()
	os.Exit(code)
}

// oneStop is how far apart two signals may be that mean one stop: Ctrl-C signals the whole process
// group, and a supervisor in it forwards the signal.
const oneStop = 500 * time.Millisecond

// signalContext ends with the first SIGTERM or interrupt. A second one ends the process at once.
func signalContext() (context.Context, func()) {
	ctx, cancel := context.WithCancel(context.Background())
	signals := make(chan os.Signal, 2)
	signal.Notify(signals, syscall.SIGTERM, os.Interrupt)
	go func() {
		awaitSecond(signals, cancel)
		fmt.Fprintln(os.Stderr, "walpost: stopped at once by a second signal; nothing is lost, but events "+
			"in flight will be sent again")
		os.Exit(exitFailed)
	}()
	return ctx, func() { signal.Stop(signals); cancel() }
}

// awaitSecond calls first at the first signal. It returns at the next one that is not part of the
// same stop.
func awaitSecond(signals <-chan os.Signal, first func()) {
	<-signals
	began := time.Now()
	first()
	for range signals {
		if time.Since(began) >= oneStop {
			return
		}
	}
}

func run(ctx context.Context, args []string, stdout, stderr io.Writer) int {
	var cli commands
	parsed, err := config.Parse(&cli, args, stdout, stderr,
		kong.Vars{"version": versionLine()},
		kong.Description("The message relay of the transactional outbox pattern: Postgres to Kafka, nothing "+
			"lost, in order."),
	)
	var usage *config.UsageError
	switch {
	case errors.Is(err, config.ErrHelp):
		return exitOK
	case errors.As(err, &usage):
		for _, fault := range usage.Faults {
			fmt.Fprintln(stderr, "walpost:", fault)
		}
		if unknown, err := config.UnknownVariables(os.Environ()); err == nil && len(unknown) > 0 {
			fmt.Fprintln(stderr, "walpost: these environment variables are not settings:", strings.Join(unknown, ", "))
		}
		fmt.Fprintln(stderr, "walpost: see `walpost <command> --help`; nothing was started")
		return exitUsage
	case err != nil:
		fmt.Fprintln(stderr, "walpost:", err)
		return exitFailed
	}
	chosen, ok := parsed.Selected().Target.Addr().Interface().(command)
	if !ok {
		fmt.Fprintln(stderr, "walpost: a command is missing its code:", parsed.Command())
		return exitFailed
	}
	return exitCode(chosen.execute(ctx, stdout, stderr), stderr)
}

// exitCode prints why a command ended, and returns the exit code that says so.
func exitCode(err error, stderr io.Writer) int {
	var halt *relay.Halt
	var told *toldError
	var settings *cdc.SettingsError
	switch {
	case err == nil:
		return exitOK
	case errors.As(err, &told):
		return told.code
	case errors.As(err, &settings):
		fmt.Fprintln(stderr, "walpost:", err)
		fmt.Fprintln(stderr, "walpost: what to do:", settings.Hint)
		return exitUsage
	case errors.As(err, &halt) && !errors.Is(err, relay.ErrDrain):
		fmt.Fprintln(stderr, "walpost:", err)
		fmt.Fprintln(stderr, "walpost: what to do:", halt.Hint)
		return exitHalt
	default:
		fmt.Fprintln(stderr, "walpost:", err)
		var stop *cdc.StopError
		if errors.As(err, &stop) {
			fmt.Fprintln(stderr, "walpost: what to do:", stop.Hint)
		}
		return exitFailed
	}
}

// toldError is an error that was printed or logged already.
type toldError struct {
	code int
	err  error
}

func (e *toldError) Error() string { return e.err.Error() }
func (e *toldError) Unwrap() error { return e.err }
