package main

import (
	"bufio"
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"syscall"
	"time"

	"github.com/jackc/pglogrepl"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgproto3"

	"github.com/walpost/walpost/integration"
)

// reader reads a slot and throws away what it gets: nothing that reads a slot is faster.
type reader struct {
	url    string
	gulp   time.Duration // between two drains of the socket; zero = reads at once
	buffer int           // of the socket, in bytes; zero = the system's
}

// gulps reads until a read is short, and then lets the socket fill.
type gulps struct {
	io.Reader
	pause   time.Duration
	drained bool
}

func (g *gulps) Read(p []byte) (int, error) {
	if g.pause > 0 && g.drained {
		time.Sleep(g.pause)
	}
	n, err := g.Reader.Read(p)
	g.drained = n < min(len(p), 32<<10)
	return n, err
}

// measure reads so many rows from the slot.
func (r reader) measure(h *host, env *integration.Env, slot string, rows int) drained {
	cfg, err := pgconn.ParseConfig(r.url + "&replication=database")
	if err != nil {
		h.Fatal(err)
	}
	dialer := net.Dialer{Control: func(_, _ string, raw syscall.RawConn) (err error) {
		if r.buffer > 0 {
			_ = raw.Control(func(fd uintptr) {
				err = syscall.SetsockoptInt(int(fd), syscall.SOL_SOCKET, syscall.SO_RCVBUF, r.buffer)
			})
		}
		return err
	}}
	cfg.DialFunc = dialer.DialContext
	cfg.BuildFrontend = func(in io.Reader, out io.Writer) *pgproto3.Frontend {
		pause := r.gulp
		if _, secure := out.(*tls.Conn); secure {
			pause = 0 // a read brings one record of TLS, however full the socket is
		}
		// As much at once as the relay takes: a read that the buffer cuts short is not a socket
		// that is empty.
		return pgproto3.NewFrontend(bufio.NewReaderSize(&gulps{Reader: in, pause: pause}, 256<<10), out)
	}
	start := time.Now()
	conn, err := pgconn.ConnectConfig(h.ctx, cfg)
	if err != nil {
		h.Fatal(err)
	}
	defer func() { _ = conn.Close(context.Background()) }()
	err = pglogrepl.StartReplication(h.ctx, conn, slot, 0, pglogrepl.StartReplicationOptions{
		Mode: pglogrepl.LogicalReplication, PluginArgs: []string{
			"proto_version '1'",
			"publication_names '" + env.Publication + "'",
		},
	})
	if err != nil {
		h.Fatal(err)
	}
	own := busyTime(os.Getpid())
	frontend := conn.Frontend()
	var first time.Time
	for seen := 0; seen < rows; {
		m, err := frontend.Receive()
		if err != nil {
			h.Fatal(err)
		}
		if data, ok := m.(*pgproto3.CopyData); ok && len(data.Data) > 25 && data.Data[0] == 'w' &&
			data.Data[25] == 'I' {
			if seen++; seen == 1 {
				first = time.Now()
			}
		}
	}
	end := time.Now()
	return drained{
		rows: rows, whole: end.Sub(start), steadyRows: rows - 1, steady: end.Sub(first),
		own: busyTime(os.Getpid()) - own, walsender: busyTime(int(conn.PID())),
	}
}

// measureRecvlogical reads the slot with Postgres' own program, where there is one.
func measureRecvlogical(h *host, env *integration.Env, program, slot string, rows int) drained {
	start := time.Now()
	cmd := exec.CommandContext(h.ctx, program, "--start", "--slot", slot, "--dbname", env.URL(), "--file", "/dev/null",
		"-o", "proto_version=1", "-o", "publication_names="+env.Publication, "--endpos", env.Value(h,
			"SELECT pg_current_wal_lsn()"))
	output, err := cmd.CombinedOutput()
	if err != nil {
		h.Fatal(fmt.Errorf("%w: %s", err, output))
	}
	took := time.Since(start)
	own := cmd.ProcessState.UserTime() + cmd.ProcessState.SystemTime()
	return drained{rows: rows, whole: took, steadyRows: rows, steady: took, own: own}
}
