// Package sim runs relays against a simulated Postgres and simulated brokers, with a virtual clock,
// faults of both sides and of the relays, and rules that must hold after every step. It is imported
// by tests alone.
//
// The relay, its cdc and its sink are the real ones. Postgres is a server of its protocol, over
// connections in memory: a WAL of transactions, a slot, timelines. Kafka begins where the client of
// franz-go would: [sink.Client] and [relay.Store] with the promises that this client makes, because
// the client itself holds mutexes across requests and a virtual clock stands still then.
//
// What happens, and when, comes from a seed. The order of goroutines between two moments of the
// virtual clock does not, nor does the jitter of pauses, so a seed may need some runs to fail
// again.
package sim
