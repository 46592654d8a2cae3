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
// Setup shares one server of each Postgres version and one broker among all tests; each test has
// its own database, slot and topics there. Everything ends with the test binary, which prints as
// its last lines what ran against what and what was skipped, and writes them to the file that
// WALPOST_TEST_SUMMARY names. Where CI is set, a missing server is a failure.
//
// # The harness
//
//	servers   Postgres, Kafka and the fake broker: where they come from; stop, kill, freeze, restart
//	faults    a line that is slow, cut or silent; clocks that can be stepped
//	process   the relay as a process: signals, exit code, log, HTTP answers
//	workload  writes events as services do
//	checker   compares the records with what was committed
//	wait      deadlines that a busy machine does not break
//	env*.go   Env: what one test gets of all these
//
// # How to add a test
//
// Take the file by what the test proves:
//
//	delivery_*    all there, in order, unchanged; which rows and types become which records
//	kill_*        the relay is killed, terminated, paused, or has a successor
//	postgres_*    outages, links, failovers and settings of Postgres
//	kafka_*       outages, topics, rights and quotas of Kafka
//	catalog_*     slot, publication and tables change under the relay
//	refused_*     an event that the brokers or the contract refuse
//	setup_*       init, status, settings and certificates
//	harness_*     the harness does what it says
//	soak_*        random faults for hours
//	helpers_*     no tests: what many of them use
//
// All are one package, since servers are started once for each package, and its tests wait for the
// same timeouts side by side.
//
// Say in Needs what the test needs. A test that stops or configures a server, steps a clock, or
// compares positions in the WAL that others must not move gets a server of its own (OwnPostgres,
// Own, OwnThree, Faulty). Call t.Parallel unless the test measures memory, processor time or
// delays.
//
// Let it fail for its own reason alone, however busy the machine is:
//
//   - Read a lower bound before the event that it bounds, and an upper bound after it. The WAL of a
//     shared server grows by other tests at any moment.
//   - Wait for what can be seen (a log line, /status, a record, a row of pg_stat_activity), never
//     for a time. A time.Sleep needs a reason beside it.
//   - Deadlines of package wait (Eventually, Relay.Ready, Relay.Wait, Workload.WaitCommitted) do
//     not
//     run while the machine is overloaded. Take one that is generous, and check a delay only where
//     the delay is the promise: with wait.In, not with the clock.
//   - Do not count log lines that a slow machine may repeat.
//   - Take ports from servers.FreePorts: a port that the kernel chose may be a client's once its
//     server is stopped.
//
// Break the code once and watch it fail. A test that takes minutes begins with long(t). One test:
//
//	make test-integration TESTFLAGS='-v -run TestName'
package integration
