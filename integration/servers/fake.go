package servers

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strconv"
	"sync"
	"syscall"
	"testing"

	"github.com/walpost/walpost/internal/pgserver/child"
)

// fakeEnvironment makes a program with the harness play the fake broker; its value is the port.
const fakeEnvironment = "WALPOST_INTEGRATION_FAKE_PORT"

// fakeDir is where the fake broker keeps its records, so that they survive Kill and Start.
const fakeDir = "WALPOST_INTEGRATION_FAKE_DIR"

// Fake is a fake broker in a process of its own, for faults that a real one does not produce on
// demand.
type Fake struct {
	port int
	dir  string
	log  *child.Tail

	mu      sync.Mutex // one command at a time
	proc    *child.Process
	input   io.WriteCloser
	answers *bufio.Reader
}

// fakeCommand is one line to the process; its answer is one line with a fakeAnswer.
type fakeCommand struct {
	Op    string // fail, end, blackhole, heal, hits
	Topic string // empty: any
	Code  int16  // of Kafka's protocol
	Count int    // requests; -1: until heal
	End   string // what becomes of the end of a transaction
}

type fakeAnswer struct {
	Error string
	Hits  int
}

// PlayFake plays the fake broker, to its end, where this process was started to be one. The main
// function of a program with the harness asks it first.
func PlayFake() bool {
	port := os.Getenv(fakeEnvironment)
	if port == "" {
		return false
	}
	if err := runFake(port, os.Stdin, os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	return true
}

// StartFake runs a fake broker until the test ends.
func StartFake(t testing.TB) *Fake {
	t.Helper()
	ports, err := FreePorts(1)
	if err != nil {
		t.Fatal(err)
	}
	f := &Fake{port: ports[0], dir: t.TempDir(), log: child.NewTail(nil, 16<<10)}
	f.Start(t)
	t.Cleanup(f.Kill)
	return f
}

// Brokers is the address for clients.
func (f *Fake) Brokers() []string {
	return []string{net.JoinHostPort("127.0.0.1", strconv.Itoa(f.port))}
}

// Start runs the broker again after Kill, on the same port and with the records it had.
func (f *Fake) Start(t testing.TB) {
	t.Helper()
	if err := f.start(); err != nil {
		t.Fatalf("start fake broker: %v: %s", err, f.log)
	}
}

func (f *Fake) start() error {
	f.mu.Lock()
	defer f.mu.Unlock()
	commands, input, err := os.Pipe()
	if err != nil {
		return err
	}
	answers, output, err := os.Pipe()
	if err != nil {
		return errors.Join(err, commands.Close(), input.Close())
	}
	// Standard output carries the answers, and nothing else must get into them: the log of the
	// broker is off.
	proc, err := child.Start(child.Spec{
		Path: os.Args[0], Input: commands, Output: output,
		Env: append(os.Environ(), fakeEnvironment+"="+strconv.Itoa(f.port), fakeDir+"="+f.dir),
	})
	err = errors.Join(err, commands.Close(), output.Close())
	if err != nil {
		return errors.Join(err, input.Close(), answers.Close())
	}
	f.proc, f.input, f.answers = proc, input, bufio.NewReader(io.TeeReader(answers, f.log))
	go func() { // ends with the process
		<-proc.Done()
		_ = input.Close()
		_ = answers.Close()
	}()
	_, err = f.answer() // the first line says that it listens
	return err
}

// PID is the process id.
func (f *Fake) PID() int { return f.proc.PID }

// Kill ends the process. Records that were confirmed are on the disk.
func (f *Fake) Kill() { f.proc.Kill() }

// Freeze stops the process in the middle of whatever it does; connections stay open and say nothing
// more.
func (f *Fake) Freeze() { f.proc.Signal(syscall.SIGSTOP) }

// Thaw lets it go on.
func (f *Fake) Thaw() { f.proc.Signal(syscall.SIGCONT) }

// FailProduce answers the next count requests that hold records for the topic (empty: any) with an
// error code of Kafka's protocol, such as 10 for MESSAGE_TOO_LARGE; -1 goes on until Heal.
func (f *Fake) FailProduce(t testing.TB, topic string, code int16, count int) {
	t.Helper()
	f.do(t, fakeCommand{Op: "fail", Topic: topic, Code: code, Count: count})
}

// What FailEnd makes of a request to end a transaction.
const (
	EndLost      = "lost"      // it is carried out, and the connection closed without an answer
	EndSwallowed = "swallowed" // it is not carried out, and never answered
	EndRefused   = "refused"   // it is not carried out, and answered with UNKNOWN_SERVER_ERROR
	EndDenied    = "denied"    // it is carried out, and answered with UNKNOWN_SERVER_ERROR
)

// FailEnd does that to the next count requests to end a transaction; -1 goes on until Heal.
func (f *Fake) FailEnd(t testing.TB, how string, count int) {
	t.Helper()
	f.do(t, fakeCommand{Op: "end", End: how, Count: count})
}

// Blackhole lets produce requests in and never answers them, until Heal.
func (f *Fake) Blackhole(t testing.TB) {
	t.Helper()
	f.do(t, fakeCommand{Op: "blackhole"})
}

// Heal removes all faults.
func (f *Fake) Heal(t testing.TB) {
	t.Helper()
	f.do(t, fakeCommand{Op: "heal"})
}

// Hits is how many requests FailProduce, FailEnd and Blackhole have caught since the last Heal.
func (f *Fake) Hits(t testing.TB) int {
	t.Helper()
	return f.do(t, fakeCommand{Op: "hits"}).Hits
}

func (f *Fake) do(t testing.TB, command fakeCommand) fakeAnswer {
	t.Helper()
	f.mu.Lock()
	defer f.mu.Unlock()
	err := json.NewEncoder(f.input).Encode(command)
	var answer fakeAnswer
	if err == nil {
		answer, err = f.answer()
	}
	if err != nil {
		t.Fatalf("tell fake broker to %s: %v", command.Op, err)
	}
	return answer
}

func (f *Fake) answer() (fakeAnswer, error) {
	line, err := f.answers.ReadBytes('\n')
	if err != nil {
		return fakeAnswer{}, fmt.Errorf("read answer: %w", err)
	}
	var answer fakeAnswer
	if err := json.Unmarshal(line, &answer); err != nil {
		return fakeAnswer{}, fmt.Errorf("read answer %q: %w", line, err)
	}
	if answer.Error != "" {
		return answer, errors.New(answer.Error)
	}
	return answer, nil
}
