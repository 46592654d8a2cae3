// Package cdc answers one question: where does the stream come from?
//
// It owns the replication connection to Postgres: [Connect] identifies the server, [Conn.Start] takes the slot and
// returns a [Stream] that is read message by message, and [Inspect] looks at the slot, the publication and the tables
// over a connection of its own that lives as long as the look.
//
// Invariants:
//
//   - One goroutine reads and writes the socket: the one that calls Next, Wait and Stop. Others may only set its read
//     deadline, to wake it.
//   - Status goes out on time whatever the rest does: a walsender that is not read is patient, one that hears nothing is not.
//   - A status names all three positions, and never before a position is known. A confirmed position never passes what
//     was received on this connection: the server would accept it and skip what lies between.
//   - A slot that once existed is never created again, and a warning on the stream means that rows may be missing.
package cdc
