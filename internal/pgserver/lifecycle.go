package pgserver

import (
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/walpost/walpost/internal/pgserver/child"
)

// StopMode is one of the three ways in which Postgres shuts down.
type StopMode int

// The modes, as pg_ctl names them.
const (
	Smart     StopMode = iota // waits until all clients have left
	Fast                      // ends sessions, writes a checkpoint, waits for walsenders
	Immediate                 // quits at once; the next start recovers from the WAL
)

func (m StopMode) signal() syscall.Signal {
	switch m {
	case Smart:
		return syscall.SIGTERM
	case Immediate:
		return syscall.SIGQUIT
	default:
		return syscall.SIGINT
	}
}

// start runs the postmaster and waits until it says that it is ready.
func (s *Server) start(ctx context.Context) error {
	proc, err := s.run(s.log, "postgres", "-D", s.DataDir())
	if err != nil {
		return fmt.Errorf("start postgres %s: %w", s.Version(), err)
	}
	s.mu.Lock()
	s.proc = proc
	s.mu.Unlock()

	ticker := time.NewTicker(10 * time.Millisecond)
	defer ticker.Stop()
	for !s.ready(proc.PID) {
		select {
		case <-proc.Done():
			return fmt.Errorf("start postgres %s: it ended at once: %s", s.Version(), s.LogTail())
		case <-ctx.Done():
			s.Kill()
			return fmt.Errorf("wait for postgres %s to accept connections: %w", s.Version(), ctx.Err())
		case <-ticker.C:
		}
	}
	return nil
}

// ready reads postmaster.pid. Its first line must be our own process, since a killed server leaves
// its file behind. In its eighth line the postmaster says that it accepts connections.
func (s *Server) ready(pid int) bool {
	content, err := os.ReadFile(filepath.Join(s.DataDir(), "postmaster.pid"))
	if err != nil {
		return false
	}
	lines := strings.Split(string(content), "\n")
	return len(lines) >= 8 && strings.TrimSpace(lines[0]) == strconv.Itoa(pid) &&
		strings.TrimSpace(lines[7]) == "ready"
}

// Stop asks the server to shut down and waits until all its processes have ended. If ctx ends
// first, the server may still be running, and the error says so. To stop a stopped server is no
// error.
func (s *Server) Stop(ctx context.Context, mode StopMode) error {
	done := s.Done()
	s.Signal(mode.signal())
	select {
	case <-done:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("wait for postgres to stop: %w", ctx.Err())
	}
}

// Signal sends a signal to the postmaster if it runs.
func (s *Server) Signal(sig os.Signal) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.proc != nil {
		s.proc.Signal(sig)
	}
}

// Kill ends the postmaster and all its children with SIGKILL, as a crash of the machine would, and
// waits until they are gone.
func (s *Server) Kill() {
	s.mu.Lock()
	proc := s.proc
	s.mu.Unlock()
	if proc != nil {
		proc.Kill()
	}
}

// Restart starts a stopped or killed server again, on the same data directory and port. A running
// one is stopped fast first.
func (s *Server) Restart(ctx context.Context) error {
	if err := s.Stop(ctx, Fast); err != nil {
		return err
	}
	return s.start(ctx)
}

// run starts one of the programs under the account of the server. If this process dies, it gets
// SIGQUIT, the immediate shutdown: a fast one would wait for walsenders, whose client may live on.
func (s *Server) run(output io.Writer, program string, args ...string) (*child.Process, error) {
	return child.Start(child.Spec{
		Path: s.installed.path(program), Args: args, Dir: s.dir, Env: append(environment(), s.opts.Env...),
		Output: output, Death: syscall.SIGQUIT, Credential: s.account.credential(),
	})
}

// environment keeps the libpq variables of this process out of the server: PGPORT or PGDATA would
// override its settings.
func environment() []string {
	var env []string
	for _, entry := range os.Environ() {
		if !strings.HasPrefix(entry, "PG") && !strings.HasPrefix(entry, "LC_") && !strings.HasPrefix(entry, "LANG") {
			env = append(env, entry)
		}
	}
	return append(env, "LC_ALL=C")
}
