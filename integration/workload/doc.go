// Package workload writes events as services do: several connections, transactions of all kinds,
// savepoints, COPY, rollbacks, NULL payloads, large ones, and what is not ASCII.
//
// It holds a row lock for each aggregate while it numbers events, so commit order is the order of
// the numbers. The outbox table tells afterwards what was committed, also where the answer to a
// COMMIT was lost, so a test must not delete from it.
package workload
