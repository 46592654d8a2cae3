// Package sink answers one question: where does the stream go?
//
// [Sink] turns events into records and produces them asynchronously. The promise of a record counts
// its event as published, or latches the first permanent error; it decides nothing.
//
// Invariants:
//
//   - Records reach their partition in the order of the Produce calls: one idempotent producer,
//     acks from all in-sync replicas, retries without end, keys hashed as Java clients hash them.
//   - After a permanent error nothing more is sent, not even what was buffered already: a later
//     event of the same key must not be published before the refused one.
//   - Produce never blocks. The caller asks Held after each event, and waits for Room.
//   - The bytes of a record are copies that belong to the sink. Events are borrowed.
package sink
