package pgserver

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/walpost/walpost/internal/pgserver/child"
)

// Server is a running, or stopped, Postgres. Its methods may be called from several goroutines, but
// Stop, Kill, Restart and Close one at a time.
type Server struct {
	opts      Options
	installed installation
	account   *account
	dir       string
	ownsDir   bool
	port      int
	log       *child.Tail
	logFile   *os.File

	mu   sync.Mutex
	proc *child.Process // the postmaster that was started last
}

// Start finds or fetches the binaries, creates the data directory if there is none, starts the
// server and returns when it accepts connections. The caller owns the Server and must Close it. ctx
// bounds the start alone.
func Start(ctx context.Context, opts Options) (*Server, error) {
	if err := opts.validate(); err != nil {
		return nil, err
	}
	acct, err := unprivileged()
	if err != nil {
		return nil, err
	}
	installed, err := find(ctx, opts, acct)
	if err != nil {
		return nil, err
	}
	s := &Server{opts: opts, installed: installed, account: acct}
	err = s.create(ctx)
	if err == nil {
		return s, nil
	}
	s.Kill()
	return nil, errors.Join(err, s.remove())
}

// create makes the directory and the first start. What it made is known to Close at every point of
// failure.
func (s *Server) create(ctx context.Context) error {
	if err := s.makeDir(); err != nil {
		return err
	}
	logTo := s.opts.Log
	if logTo == nil {
		f, err := os.OpenFile(filepath.Join(s.dir, "server.log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
		if err != nil {
			return fmt.Errorf("open server log: %w", err)
		}
		s.logFile, logTo = f, f
	}
	s.log = child.NewTail(logTo, 16<<10)
	if err := s.initdb(ctx); err != nil {
		return err
	}
	return s.firstStart(ctx)
}

// firstStart tries again with another port when somebody took the free one between asking for it
// and binding it.
func (s *Server) firstStart(ctx context.Context) error {
	for attempt := 1; ; attempt++ {
		if s.port = s.opts.Port; s.port == 0 {
			var err error
			if s.port, err = FreePort(); err != nil {
				return err
			}
		}
		if err := s.writeConfiguration(); err != nil {
			return err
		}
		err := s.start(ctx)
		if err == nil || s.opts.Port != 0 || attempt == 3 || !strings.Contains(s.LogTail(), "could not bind") {
			return err
		}
	}
}

// URL is the connection string of the superuser for a database of this server.
func (s *Server) URL(db string) string {
	return fmt.Sprintf("postgres://postgres@127.0.0.1:%d/%s?sslmode=disable", s.port, db)
}

// Port is the TCP port on 127.0.0.1. It stays the same through Restart.
func (s *Server) Port() int { return s.port }

// Major is the major version, such as 18.
func (s *Server) Major() int { return s.installed.major }

// Version is the full version, such as "18.6".
func (s *Server) Version() string { return s.installed.version }

// DataDir is the data directory. As root it belongs to another account.
func (s *Server) DataDir() string { return filepath.Join(s.dir, "data") }

// LogTail is the end of what the server printed, at most 16 KiB.
func (s *Server) LogTail() string {
	if s.log == nil {
		return ""
	}
	return s.log.String()
}

// Done is closed when the server that was started last, with all its children, has ended.
func (s *Server) Done() <-chan struct{} {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.proc == nil {
		done := make(chan struct{})
		close(done)
		return done
	}
	return s.proc.Done()
}

// Close stops the server and removes what Start created. It may be called again.
func (s *Server) Close() error {
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	if err := s.Stop(ctx, Fast); err != nil {
		s.Kill()
	}
	return s.remove()
}

// remove gives back what a stopped server leaves.
func (s *Server) remove() error {
	var errs []error
	if s.logFile != nil {
		errs = append(errs, s.logFile.Close())
		s.logFile = nil
		s.log.Redirect(nil)
	}
	if s.ownsDir {
		errs = append(errs, os.RemoveAll(s.dir))
	}
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("clean up after postgres: %w", err)
	}
	return nil
}
