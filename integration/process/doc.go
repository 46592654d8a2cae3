// Package process builds the relay and runs it as a process of its own: signals, exit codes, its
// log, and its answers on /readyz, /status and /metrics.
package process
