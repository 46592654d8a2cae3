// Package pgserver runs a real Postgres of a chosen major version as a child process, for the demo
// and for tests.
//
// Invariants:
//
//   - Postgres refuses to run as root. When this process is root, initdb and the server run as
//     "postgres", or else as "nobody", and everything they need lies where that account can reach
//     it.
//   - The server is a direct child with a parent-death signal (Linux): however this process ends,
//     kill -9 included, no postgres outlives it.
//   - The child has a process group of its own: Ctrl-C on the terminal reaches only this process,
//     which then decides in which order things stop.
//   - A binary enters the cache by one rename of a whole directory, so a download that was killed
//     leaves nothing that looks finished.
//   - Close stops the server and removes what Start created. Only the download cache stays.
package pgserver
