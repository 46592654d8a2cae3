// Package child runs other programs so that none of them outlives this process.
//
// Invariants:
//
//   - On Linux a child dies with this process, however that ends, kill -9 included.
//   - A child has a process group of its own: Ctrl-C on the terminal reaches this process alone.
//   - Done is closed only when the child and everything that inherited its output has ended.
package child
