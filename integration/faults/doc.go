// Package faults has a line between a client and a server that can be slow, cut or silent, and wall
// clocks that can be stepped. Servers themselves are stopped, killed and frozen through package
// servers.
package faults
