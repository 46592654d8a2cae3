package pgserver

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
)

// settingsFile lies in the data directory and is included at the end of postgresql.conf, so that it
// can be written anew at each start while ALTER SYSTEM still wins.
const settingsFile = "walpost.conf"

func (s *Server) makeDir() error {
	if s.opts.Dir == "" {
		dir, err := os.MkdirTemp("", "walpost-postgres-")
		if err != nil {
			return fmt.Errorf("create directory for postgres: %w", err)
		}
		s.dir, s.ownsDir = dir, true
	} else {
		dir, err := filepath.Abs(s.opts.Dir)
		if err != nil {
			return fmt.Errorf("resolve directory for postgres: %w", err)
		}
		if err := os.MkdirAll(dir, 0o700); err != nil {
			return fmt.Errorf("create directory for postgres: %w", err)
		}
		s.dir = dir
	}
	if !s.account.reaches(s.dir) {
		return fmt.Errorf("use directory %s for postgres: the unprivileged account that runs postgres for root "+
			"cannot enter it; set TMPDIR, or choose a directory that everybody may enter", s.dir)
	}
	return s.account.own(s.dir)
}

// initdb creates the cluster unless there is one. It is cheap to lose, so it is not synchronised to
// disk.
func (s *Server) initdb(ctx context.Context) error {
	version, err := os.ReadFile(filepath.Join(s.DataDir(), "PG_VERSION"))
	if err == nil {
		if found := string(bytes.TrimSpace(version)); found != fmt.Sprint(s.Major()) {
			return fmt.Errorf("use data directory %s: it is of postgres %s, not %d", s.DataDir(), found, s.Major())
		}
		return nil
	}
	if !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("read data directory: %w", err)
	}

	var output bytes.Buffer
	proc, err := s.run(&output, "initdb", "-D", s.DataDir(), "-U", "postgres",
		"-A", "trust", "-E", "UTF8", "--locale=C", "--no-sync")
	if err != nil {
		return fmt.Errorf("run initdb: %w", err)
	}
	select {
	case <-proc.Done():
	case <-ctx.Done():
		proc.Signal(os.Kill)
		<-proc.Done()
		return fmt.Errorf("run initdb: %w", ctx.Err())
	}
	if !proc.State().Success() {
		return fmt.Errorf("run initdb: %s: %s", proc.State(), output.String())
	}
	return s.include()
}

func (s *Server) include() error {
	f, err := os.OpenFile(filepath.Join(s.DataDir(), "postgresql.conf"), os.O_APPEND|os.O_WRONLY, 0)
	if err != nil {
		return fmt.Errorf("configure postgres: %w", err)
	}
	_, err = fmt.Fprintf(f, "\ninclude_if_exists '%s'\n", settingsFile)
	if err := errors.Join(err, f.Close()); err != nil {
		return fmt.Errorf("configure postgres: %w", err)
	}
	return nil
}

func (s *Server) writeConfiguration() error {
	path := filepath.Join(s.DataDir(), settingsFile)
	if err := os.WriteFile(path, []byte(s.opts.configuration(s.port)), 0o600); err != nil {
		return fmt.Errorf("configure postgres: %w", err)
	}
	return s.account.own(path)
}
