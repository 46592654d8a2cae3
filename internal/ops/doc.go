// Package ops is what operators and their machines see of a running relay: health, metrics and
// status over HTTP.
//
// What holds:
//   - Every answer comes from one Snapshot of plain values. Nothing here talks to Postgres or
//     Kafka, so the answers come while either is away, and nothing here waits for the pipeline or
//     makes it wait.
//   - Liveness is the process alone: an outage of Postgres or Kafka must not make anybody restart
//     the relay, because a restart mends nothing there. Readiness does depend on both.
//   - The names of the metrics are a contract. The number of their series is bounded, though topics
//     come from rows.
//   - Payloads, keys and secrets never get here.
package ops
