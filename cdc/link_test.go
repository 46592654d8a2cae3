package cdc

import (
	"context"
	"io"
	"net"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgconn"
)

// TestSilentServer lets a proxy swallow everything in both directions, as a vanished host does.
func TestSilentServer(t *testing.T) {
	t.Parallel()
	f := setup(t, 15, map[string]string{"wal_sender_timeout": "0"})
	addr, swallow := proxy(t, f.cfg.Postgres, 0)
	f.cfg.Postgres = f.cfg.Postgres.Copy()
	f.cfg.Postgres.Host, f.cfg.Postgres.Port = addr.IP.String(), uint16(addr.Port)
	s := f.start()
	s.interval, s.silence = 100*time.Millisecond, 2*time.Second
	ctx, cancel := context.WithTimeout(t.Context(), 4*time.Second)
	defer cancel()
	for ctx.Err() == nil { // a quiet server answers the probes
		if _, err := s.Next(ctx); err != nil && ctx.Err() == nil {
			t.Fatalf("a server that answers was given up: %v", err)
		}
	}
	swallow.Store(true)
	for {
		_, err := s.Next(t.Context())
		if err == nil {
			continue
		}
		if !Transient(err) || !strings.Contains(err.Error(), "silent") || !s.Gone() {
			t.Fatalf("Next = %v", err)
		}
		return
	}
}

// proxy forwards bytes in both directions until it is told to swallow them. slow is how long it
// waits before each read.
func proxy(t *testing.T, to *pgconn.Config, slow time.Duration) (*net.TCPAddr, *atomic.Bool) {
	t.Helper()
	listener, err := net.ListenTCP("tcp", &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = listener.Close() })
	swallow := &atomic.Bool{}
	copyAll := func(dst, src net.Conn) {
		defer func() { _ = dst.Close() }()
		buf := make([]byte, 4<<10)
		for {
			time.Sleep(slow)
			n, err := src.Read(buf)
			if err != nil {
				return
			}
			if swallow.Load() {
				continue
			}
			if _, err := dst.Write(buf[:n]); err != nil {
				return
			}
		}
	}
	go func() {
		for {
			client, err := listener.Accept()
			if err != nil {
				return
			}
			server, err := net.DialTCP("tcp", nil, &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1), Port: int(to.Port)})
			if err != nil {
				_ = client.Close()
				return
			}
			go copyAll(client, server)
			go copyAll(server, client)
		}
	}()
	return listener.Addr().(*net.TCPAddr), swallow
}

// TestSlowLink: one message takes longer to arrive than a server may be silent. It is not silent.
func TestSlowLink(t *testing.T) {
	t.Parallel()
	f := setup(t, 15, nil)
	addr, _ := proxy(t, f.cfg.Postgres, 10*time.Millisecond)
	f.cfg.Postgres = f.cfg.Postgres.Copy()
	f.cfg.Postgres.Host, f.cfg.Postgres.Port = addr.IP.String(), uint16(addr.Port)
	s := f.start()
	s.interval, s.silence = 100*time.Millisecond, 2*time.Second
	f.exec("INSERT INTO outbox VALUES (1, (SELECT string_agg(md5(i::text), '') FROM generate_series(1, 60000) i))")
	start := time.Now()
	if n := len(next(t.Context(), t, s, 'I').Data); n < 1_900_000 {
		t.Fatalf("a message of %d bytes", n)
	}
	if took := time.Since(start); took < 2*s.silence {
		t.Fatalf("the message arrived within %s: this test proves nothing", took)
	}
}

// TestCutHandshake cuts the connection after any number of bytes that the server sends before the
// stream runs. Each time that is an outage, and nothing that needs an operator.
func TestCutHandshake(t *testing.T) {
	t.Parallel()
	f := setup(t, 15, nil)
	server := f.cfg.Postgres
	for limit := int64(0); ; limit += 3 {
		f.cfg.Postgres = server.Copy()
		addr := cutting(t, server, limit)
		f.cfg.Postgres.Host, f.cfg.Postgres.Port = addr.IP.String(), uint16(addr.Port)
		conn, err := Connect(t.Context(), f.cfg)
		if err == nil {
			_, err = conn.Start(t.Context(), 0, false)
			conn.Close()
		}
		if err == nil {
			t.Logf("the stream runs after %d bytes", limit)
			return
		}
		if !Transient(err) {
			t.Errorf("cut after %d bytes: %v", limit, err)
		}
	}
}

// cutting forwards one connection and cuts it after limit bytes from the server.
func cutting(t *testing.T, to *pgconn.Config, limit int64) *net.TCPAddr {
	t.Helper()
	listener, err := net.ListenTCP("tcp", &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	go func() {
		client, err := listener.Accept()
		_ = listener.Close()
		if err != nil {
			return
		}
		defer func() { _ = client.Close() }()
		server, err := net.DialTCP("tcp", nil, &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1), Port: int(to.Port)})
		if err != nil {
			return
		}
		defer func() { _ = server.Close() }()
		go func() { _, _ = io.Copy(server, client) }() // until one of them is closed
		_, _ = io.CopyN(client, server, limit)
	}()
	return listener.Addr().(*net.TCPAddr)
}
