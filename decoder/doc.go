// Package decoder turns the bytes of Postgres' pgoutput plugin, protocol
// version 1, into typed changes and the rows of outbox tables into events.
//
// Begin, Commit, Relation and Insert messages make changes and events. Update,
// Delete, Truncate, Type, Origin and Message make none, but they are read to
// their end. Everything else is an error: another message, a message that is
// cut short or has bytes left over, a sequence that the server would never
// send, and a row that breaks the contract of the outbox table. Nothing is ever
// skipped in silence, because what is skipped is lost.
//
// Invariants:
//
//   - Pure: no I/O, no clock, no goroutine. The input is never written to, and
//     the same messages always give the same changes.
//   - Bounded: no input makes it panic, and what it allocates is bounded by the
//     length of the messages it was given. It checks the lengths and counts that
//     a message states against its size before it uses them.
//   - Allocation-free: once the relations are known, an event costs no
//     allocation. Only Relation messages, errors, and values that have to be
//     rewritten and are larger than 1 MiB allocate.
//   - Borrowed: what Decode returns points into the message or into a buffer of
//     the Decoder. It is valid until the next call of Decode, as long as the
//     caller does not change the message.
//   - By name: every Relation message has its columns looked up by name again,
//     because DDL may move them at any time, even within a transaction.
//   - One connection: a Decoder holds the relations and the transaction of one
//     replication connection. A new connection needs a new Decoder, and a
//     Decoder that returned an error stays in that error.
//   - Payloads and keys never appear in an error.
package decoder
