//go:build !linux

package cdc

import "net"

// setUserTimeout is known for Linux only. The probes of the stream notice a silent peer, later.
func setUserTimeout(*net.TCPConn) {}
