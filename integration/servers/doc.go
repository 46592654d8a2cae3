// Package servers finds or starts what the tests run against: Postgres 14 to 18, real Kafka, and a
// fake broker that fails on demand. Sources, in this order: containers where a Docker engine
// answers, programs and jars on this machine (fetched once into a cache), addresses in
// WALPOST_TEST_POSTGRES_<major> and WALPOST_TEST_KAFKA. Servers of a test's own are always local.
//
// One server of each Postgres version and one broker serve all tests of a test binary. Close stops
// them; Summary says what ran against what, and what was skipped.
package servers
