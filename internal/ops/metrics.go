package ops

import (
	"maps"
	"slices"
	"strings"
	"sync"

	"github.com/prometheus/client_golang/prometheus"
)

const (
	maxTopics  = 1000    // Topics come from rows, so nothing else bounds them.
	otherTopic = "other" // Where the topics beyond that are counted.
)

// NewLatency makes the histogram of the time from commit to the brokers' confirmation, in seconds.
// Any goroutine may call Observe, which is cheap.
func NewLatency() prometheus.Histogram {
	return prometheus.NewHistogram(prometheus.HistogramOpts{
		Name:    "walpost_publish_latency_seconds",
		Help:    "Time from the commit in Postgres to the confirmation by the brokers.",
		Buckets: []float64{.001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10, 30, 60},
	})
}

// collector turns one Snapshot into metrics at each scrape, so the pipeline counts nothing twice.
type collector struct {
	source Source

	mu sync.Mutex
	// topics have a series of their own, and keep it: otherwise their counters would go back.
	topics map[string]bool
}

func newCollector(source Source) *collector {
	return &collector{source: source, topics: map[string]bool{}}
}

func desc(name, help string, labels ...string) *prometheus.Desc {
	return prometheus.NewDesc("walpost_"+name, help, labels, nil)
}

// The metrics of the contract, apart from the histogram.
type descriptions struct {
	published, inFlightEvents, inFlightBytes, confirmedLag, restartLag *prometheus.Desc
	safeWAL, oldest, reconnects, produceErrors, up                     *prometheus.Desc
}

func describe() descriptions {
	return descriptions{
		published:      desc("events_published_total", "Events that the brokers have confirmed.", "topic"),
		inFlightEvents: desc("in_flight_events", "Events handed to the producer and not confirmed yet."),
		inFlightBytes:  desc("in_flight_bytes", "Bytes handed to the producer and not confirmed yet."),
		confirmedLag: desc("confirmed_lag_bytes",
			"WAL between the position confirmed to Postgres and the end of the WAL; NaN: not known."),
		restartLag: desc("restart_lag_bytes", "WAL that Postgres retains for the slot; NaN: not known."),
		safeWAL: desc("slot_safe_wal_bytes",
			"WAL that may still be written before Postgres may drop what the slot needs; NaN: no limit, or not known."),
		oldest: desc("oldest_unpublished_seconds",
			"Age of the oldest event that is received and not confirmed by the brokers."),
		reconnects: desc("reconnects_total", "Connections made again after the first.", "peer"),
		produceErrors: desc("produce_errors_total",
			"Events that cannot be published, and those refused with them, by reason. "+
				"An event refused in a batch of its own stops the relay, an outage does not.", "reason"),
		up: desc("up", "Whether the relay has a working connection.", "peer"),
	}
}

// Describe is part of prometheus.Collector.
func (c *collector) Describe(ch chan<- *prometheus.Desc) {
	d := describe()
	for _, one := range []*prometheus.Desc{
		d.published, d.inFlightEvents, d.inFlightBytes, d.confirmedLag, d.restartLag, d.safeWAL, d.oldest,
		d.reconnects, d.produceErrors, d.up,
	} {
		ch <- one
	}
}

// Collect is part of prometheus.Collector.
func (c *collector) Collect(ch chan<- prometheus.Metric) {
	d, s := describe(), c.source.Snapshot()
	gauge := func(desc *prometheus.Desc, value float64, labels ...string) {
		ch <- prometheus.MustNewConstMetric(desc, prometheus.GaugeValue, value, labels...)
	}
	counter := func(desc *prometheus.Desc, value uint64, label string) {
		label = strings.ToValidUTF8(label, "?") // the library panics on one that is not UTF-8
		ch <- prometheus.MustNewConstMetric(desc, prometheus.CounterValue, float64(value), label)
	}
	gauge(d.inFlightEvents, float64(s.InFlightEvents))
	gauge(d.inFlightBytes, float64(s.InFlightBytes))
	gauge(d.confirmedLag, s.ConfirmedLagBytes)
	gauge(d.restartLag, s.RestartLagBytes)
	gauge(d.safeWAL, s.SlotSafeWALBytes)
	gauge(d.oldest, s.OldestUnpublished.Seconds())
	// Both peers are always there: an alert on a series that is missing until the first outage
	// would miss that outage.
	for _, peer := range []string{PeerPostgres, PeerKafka} {
		up := 0.0
		if s.Up[peer] {
			up = 1
		}
		gauge(d.up, up, peer)
		counter(d.reconnects, s.Reconnects[peer], peer)
	}
	for reason, count := range s.ProduceErrors {
		counter(d.produceErrors, count, reason)
	}
	for topic, count := range c.bounded(s.Published) {
		counter(d.published, count, topic)
	}
}

// bounded counts the topics beyond maxTopics under one name.
func (c *collector) bounded(published map[string]uint64) map[string]uint64 {
	c.mu.Lock()
	defer c.mu.Unlock()
	counts := make(map[string]uint64, min(len(published), maxTopics+1))
	for _, topic := range slices.Sorted(maps.Keys(published)) {
		label := topic
		if !c.topics[topic] && len(c.topics) < maxTopics {
			c.topics[topic] = true
		}
		if !c.topics[topic] {
			label = otherTopic
		}
		counts[label] += published[topic]
	}
	return counts
}
