// Package demo shows events flow: an order service writes to Postgres, the relay publishes, a
// consumer prints what arrives, and a ledger compares the two ends.
//
// Invariants:
//
//   - The relay and the setup are those of the program, handed in as [Tools]: the demo has no
//     shortcut around them.
//   - The ledger learns of an event before its COMMIT is sent and never from the relay, so a record
//     can neither arrive too early to be known nor vouch for itself.
//   - On servers that belong to the caller everything has the demo's own name, an object that
//     somebody else made under such a name is an error, and what the demo made is removed at the
//     end, or by the next run if this one was killed.
//   - Whatever ends the demo, the order is the same: the service stops, the events in flight
//     arrive, the relay drains, the consumer reads to the end, and the servers stop last.
package demo
