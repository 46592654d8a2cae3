// Package checkpoint answers one question: what may be confirmed to Postgres?
//
// [Watermark] turns the unordered confirmations of the brokers into one position: everything before
// it is on the brokers, without a hole. [Store] stores that position in a compacted Kafka topic. At
// a start, [Resume] compares the stored position with the slot and decides where to start, or that
// an operator must act first.
//
// Invariants:
//
//   - A position is the end of the contiguous published prefix of the stream, never a maximum.
//   - It only moves forward, and never past an event that the brokers have not confirmed.
//   - An idle advance (the WAL end of a keepalive) waits in the same queue, behind every
//     transaction received before it.
//   - A position is stored before it is confirmed to Postgres, so the slot is never ahead of it. If
//     it is, somebody moved the slot, and [Resume] notices.
package checkpoint
