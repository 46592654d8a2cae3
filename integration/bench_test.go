package integration

import (
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"
)

var deliveries = []string{"at-least-once", exactly}

// BenchmarkDrain measures how fast a relay catches up with a backlog: rows of about 500 bytes, ten to a transaction. The
// deliveries take turns in one run, so that their ratio means something on a machine that is busy with other things.
func BenchmarkDrain(b *testing.B) {
	const rows = 500_000
	for _, delivery := range deliveries {
		b.Run(delivery, func(b *testing.B) {
			for b.Loop() {
				b.StopTimer()
				env := Setup(b, Needs{})
				env.Init(b)
				env.CreateTopic(b, env.Prefix+"order", eventPartitions, nil)
				env.Exec(b, fmt.Sprintf(`DO $$ BEGIN FOR t IN 1..%d LOOP
					INSERT INTO outbox (id, aggregatetype, aggregateid, type, payload)
						SELECT gen_random_uuid(), 'order', ((t * 10 + i) %% 1000)::text, 'Placed', jsonb_build_object('t', t, 'x', repeat('x', 440)) FROM generate_series(1, 10) i;
					COMMIT; END LOOP; END $$`, rows/10))
				relay := env.Run(b, "WALPOST_DELIVERY="+delivery)
				relay.Ready(b, 30*time.Second)
				b.StartTimer()
				first, start := published(b, env, relay, "order"), time.Now()
				for published(b, env, relay, "order") < rows {
					time.Sleep(20 * time.Millisecond)
				}
				b.StopTimer()
				b.ReportMetric((rows-first)/time.Since(start).Seconds(), "rows/s")
				relay.Stop(b)
				b.StartTimer()
			}
		})
	}
}

// BenchmarkLatency measures the time from a commit to its publication at a thousand events a second, by the relay's own
// histogram.
func BenchmarkLatency(b *testing.B) {
	for _, delivery := range deliveries {
		b.Run(delivery, func(b *testing.B) {
			for b.Loop() {
				env := Setup(b, Needs{})
				env.Init(b)
				relay := env.Run(b, "WALPOST_DELIVERY="+delivery)
				relay.Ready(b, 30*time.Second)
				work := env.Workload(b, WorkloadOptions{Rate: 1000, NoLarge: true, MaxRows: 3})
				work.WaitCommitted(b, 2000) // topics are there, and everything is warm
				before := relay.Metrics(b)
				work.WaitCommitted(b, 12_000)
				after := relay.Metrics(b)
				work.Stop(b)
				b.ReportMetric(quantile(before, after, 0.5)*1000, "p50-ms")
				b.ReportMetric(quantile(before, after, 0.99)*1000, "p99-ms")
				relay.Stop(b)
			}
		})
	}
}

// BenchmarkLoneEvent measures the same for events that come one at a time to an idle relay.
func BenchmarkLoneEvent(b *testing.B) {
	for _, delivery := range deliveries {
		b.Run(delivery, func(b *testing.B) {
			for b.Loop() {
				env := Setup(b, Needs{})
				env.Init(b)
				relay := env.Run(b, "WALPOST_DELIVERY="+delivery)
				relay.Ready(b, 30*time.Second)
				conn := env.Connect(b)
				var before map[string]float64
				for i := range 45 {
					if i == 5 { // the topic is there, and everything is warm
						before = relay.Metrics(b)
					}
					if _, err := conn.Exec(b.Context(), `INSERT INTO outbox (id, aggregatetype, aggregateid, type, payload) VALUES (gen_random_uuid(), 'order', 'k', 'T', '{}')`); err != nil {
						b.Fatal(err)
					}
					time.Sleep(250 * time.Millisecond)
				}
				after := relay.Metrics(b)
				b.ReportMetric(quantile(before, after, 0.5)*1000, "p50-ms")
				b.ReportMetric(quantile(before, after, 1)*1000, "most-ms")
				relay.Stop(b)
			}
		})
	}
}

// quantile interpolates in the buckets of the latency histogram, as Prometheus does.
func quantile(before, after map[string]float64, q float64) float64 {
	const prefix = `walpost_publish_latency_seconds_bucket{le="`
	type bucket struct{ le, count float64 }
	var buckets []bucket
	for name, count := range after {
		if text, ok := strings.CutPrefix(name, prefix); ok {
			if le, err := strconv.ParseFloat(strings.TrimSuffix(text, `"}`), 64); err == nil {
				buckets = append(buckets, bucket{le, count - before[name]})
			}
		}
	}
	slices.SortFunc(buckets, func(a, b bucket) int { return int(math.Copysign(1, a.le-b.le)) })
	if len(buckets) == 0 {
		return math.NaN()
	}
	want := q * buckets[len(buckets)-1].count
	last := bucket{}
	for _, b := range buckets {
		if b.count >= want {
			return last.le + (b.le-last.le)*(want-last.count)/(b.count-last.count)
		}
		last = b
	}
	return math.Inf(1)
}
