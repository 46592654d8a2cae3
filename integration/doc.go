// Package integration tests the built binary against real servers. A test reads like this:
//
//	env := Setup(t, Needs{Postgres: 15})        // a database and a broker, or a skip
//	env.Init(t)                                 // walpost init
//	relay := env.Run(t)                         // walpost run, with more variables if need be
//	work := env.Workload(t, WorkloadOptions{Events: 10_000})
//	relay.Ready(t, 20*time.Second)
//	work.Wait(t)
//	env.Check(t, work).Assert(t, 0)             // all there, in order, bytes equal, at most 0 repeats
//
// Setup shares one server of each Postgres version and one broker among all tests; each test has its own database, slot
// and topics there. A test that stops or configures a server says so in Needs and gets its own. Sources, in this order:
// containers where a Docker engine answers, programs and jars on this machine (fetched once into a cache), addresses in
// WALPOST_TEST_POSTGRES_<major> and WALPOST_TEST_KAFKA. Servers of a test's own are always local.
//
// Faults: Env.Server stops, kills and restarts Postgres; Env.Kafka stops, kills, freezes and starts brokers; Env.Fake
// fails produce requests on demand; Relay kills, terminates and signals the relay.
//
// The workload holds a row lock per aggregate while it numbers events, so commit order is the order of the numbers. The
// outbox table tells afterwards what was committed, also where the answer to a COMMIT was lost, so a test must not
// delete from it. The checker shares no code with the relay: it has its own murmur2, and its own tests show that it sees
// each kind of fault.
//
// Everything ends with the test binary, which prints as its last lines what ran against what and what was skipped, and
// writes them to the file that WALPOST_TEST_SUMMARY names. Where CI is set, a missing server is a failure.
package integration
