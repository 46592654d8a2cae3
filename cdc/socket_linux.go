package cdc

import (
	"net"
	"syscall"
	"time"
)

// tcpUserTimeout is TCP_USER_TIMEOUT of tcp(7), which package syscall does not name.
const tcpUserTimeout = 18

// setUserTimeout makes the kernel give up a connection whose peer has not acknowledged our status for half a minute.
// A peer that vanished without a word would otherwise hold the stream for a quarter of an hour.
func setUserTimeout(conn *net.TCPConn) {
	raw, err := conn.SyscallConn()
	if err != nil {
		return
	}
	// A kernel that refuses leaves the probes of the stream, which notice the same, later.
	_ = raw.Control(func(fd uintptr) {
		_ = syscall.SetsockoptInt(int(fd), syscall.IPPROTO_TCP, tcpUserTimeout, int((30 * time.Second).Milliseconds()))
	})
}
