// Package relay is the pipeline: it wires the stream, the decoder, the sink and the watermark, and
// keeps them running.
//
// A session is one replication connection: connect, resume, stream, and an orderly end
// (session.go). Its loop is pump, its end is finish (finish.go). Beside the loop run two goroutines
// that the session owns: the keeper stores the position and then lets the stream confirm it
// (keeper.go), and the watcher inspects the slot and the publication (watcher.go). [Relay.Run]
// starts one session after the other until it is told to stop, or until going on could lose an
// event.
//
// Invariants:
//
//   - The slot is held before the stored position is read for good, so that no other relay can be
//     writing it.
//   - A position is stored first and confirmed second, and confirmed only as far as the publication
//     is known to have
//     been whole.
//   - Between two sessions nothing is in flight: a reconnect starts at the watermark and repeats
//     nothing.
package relay
