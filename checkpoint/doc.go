// Package checkpoint answers one question: what may be confirmed to Postgres?
//
// [Watermark] turns the unordered confirmations of the brokers into one position: everything before it is on the
// brokers, without a hole. [Store] keeps a durable copy of that position in a compacted Kafka topic. [Resume] compares
// the copy with the slot at a start and decides where to begin, or that nobody may begin.
//
// Invariants:
//
//   - A position is the end of a contiguous finished prefix of the stream, never a maximum.
//   - It moves forward only, and never past an event that a broker has not confirmed.
//   - An idle advance (the WAL end of a keepalive) waits in the same queue, behind every transaction received before it.
//   - A position is stored before it is confirmed to Postgres, so the slot is never ahead of its record. If it is,
//     somebody moved the slot, and that is how [Resume] knows.
package checkpoint
