// Package cdc answers one question: where does the stream come from?
//
// It owns the replication connection to Postgres. [Connect] identifies the server, and [Conn.Start]
// takes the slot and returns a [Stream] that is read message by message. [Inspect] inspects the
// slot, the publication and the tables over an ordinary connection that it opens for that.
//
// Invariants:
//
//   - One goroutine, the reader, reads and writes the socket: the one that calls Next, Wait and
//     Stop. Others may only set its read deadline, to wake it.
//   - Status goes out on time, whatever else happens: a walsender that is not read is patient, one
//     that hears nothing is not.
//   - A status names all three positions, and only once a position is known. A confirmed position
//     never passes what this connection received: the server would accept it and skip what lies
//     between.
//   - A slot that once existed is never created again, and a warning on the stream means that rows
//     may be missing.
package cdc
