// Package ops serves the health, metrics and status of a running relay over HTTP.
//
// Invariants:
//
//   - Every answer comes from one Snapshot of plain values. Nothing here talks to Postgres or
//     Kafka, so it answers during their outages. Nothing here waits for the pipeline or makes it
//     wait.
//   - Liveness depends on the process alone: an outage of Postgres or Kafka must not restart the
//     relay, because a restart does not help. Readiness depends on both.
//   - The names of the metrics are a contract. The number of their series is bounded, though topics
//     come from rows.
//   - Payloads, keys and secrets never get here.
package ops
