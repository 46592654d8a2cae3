package faults

import (
	"errors"
	"io"
	"net"
	"os"
	"testing"
	"time"
)

// echo is a server that says what it hears, behind a proxy, and a way to connect to it.
func echo(t *testing.T) (*Proxy, func() net.Conn) {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = listener.Close() })
	go func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			go func() {
				_, _ = io.Copy(conn, conn)
				_ = conn.Close()
			}()
		}
	}()
	p := StartProxy(t, listener.Addr().String())
	return p, func() net.Conn {
		conn, err := net.Dial("tcp", p.Addr())
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = conn.Close() })
		return conn
	}
}

// says sends bytes and waits for all of them to come back.
func says(t *testing.T, conn net.Conn, size int) {
	t.Helper()
	if _, err := conn.Write(make([]byte, size)); err != nil {
		t.Fatal(err)
	}
	if err := conn.SetReadDeadline(time.Now().Add(20 * time.Second)); err != nil {
		t.Fatal(err)
	}
	if _, err := io.ReadFull(conn, make([]byte, size)); err != nil {
		t.Fatal(err)
	}
}

// TestProxyFaults shows that the line has the faults it is told to have, and only those.
func TestProxyFaults(t *testing.T) {
	t.Parallel()
	p, connect := echo(t)
	old := connect()
	says(t, old, 1<<20)

	p.CutAfter(func() int64 { return 1000 + 300 })
	cut := connect()
	if _, err := cut.Write(make([]byte, 1000)); err != nil {
		t.Fatal(err)
	}
	if got, err := io.ReadAll(cut); len(got) > 300 || err == nil && len(got) != 300 {
		t.Errorf("%d bytes came back before the cut, %v; want 300, or fewer before a reset", len(got), err)
	}
	if p.Cuts() != 1 {
		t.Errorf("%d cuts", p.Cuts())
	}
	says(t, old, 5000) // has no limit
	p.CutAfter(nil)

	open := func() (n int) { p.each(func(*link) { n++ }); return n }
	for deadline := time.Now().Add(20 * time.Second); open() > 1 && time.Now().Before(deadline); {
		time.Sleep(time.Millisecond) // the proxy learns of the cut a moment after its client
	}
	if n := p.Silence(); n != 1 {
		t.Errorf("%d connections are silent, want the one that is open", n)
	}
	if _, err := old.Write([]byte("lost")); err != nil {
		t.Error(err)
	}
	if err := old.SetReadDeadline(time.Now().Add(300 * time.Millisecond)); err != nil {
		t.Fatal(err)
	}
	if n, err := old.Read(make([]byte, 10)); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("a silent connection said %d bytes, %v", n, err)
	}
	says(t, connect(), 5000)
}

// TestProxyShape measures a slow line: never faster than it may be.
func TestProxyShape(t *testing.T) {
	t.Parallel()
	p, connect := echo(t)
	conn := connect()
	p.Shape(200*time.Millisecond, 0)
	start := time.Now()
	says(t, conn, 100<<10)
	if took := time.Since(start); took < 400*time.Millisecond || took > 10*time.Second {
		t.Errorf("a round trip took %s with 200 ms in each direction", took)
	}
	p.Shape(0, 64<<10)
	start = time.Now()
	says(t, conn, 96<<10)
	if took := time.Since(start); took < 1400*time.Millisecond || took > 15*time.Second {
		t.Errorf("96 KiB took %s at 64 KiB a second", took)
	}
}
