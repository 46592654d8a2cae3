package sink

import (
	"fmt"
	"slices"
	"testing"

	"github.com/twmb/franz-go/pkg/kgo"
)

// TestTransactionHoldsNoMore: what came while a transaction was being committed goes into as many
// more as it takes. Each has the position exactly behind its last event.
func TestTransactionHoldsNoMore(t *testing.T) {
	t.Parallel()
	const events = 80
	sizes := backlog(t, events, 2000, 0)
	if slices.Max(sizes) > 4 || len(sizes) < events/4 {
		t.Errorf("transactions hold %v events of some 600 bytes each, want at most 4", sizes)
	}
}

// TestTransactionsGrow: after small ones that are fast there are larger ones.
func TestTransactionsGrow(t *testing.T) {
	t.Parallel()
	sizes := backlog(t, 80, 10_000, 2000)
	if sizes[1] > 4 || slices.Max(sizes) < 10 || slices.Max(sizes) > 20 {
		t.Errorf("transactions hold %v events, want about 4, then 8, then 17", sizes)
	}
}

// backlog produces events while the first transaction is being committed, and returns how many each
// transaction holds.
func backlog(t *testing.T, events int, most, first int64) []int {
	t.Helper()
	f := exactly(t, func(c *Config) { c.Exactly.Bytes, c.First = most, first })
	asked, release := f.holdCommits()
	for i := range events {
		f.mustProduce("orders", "k", fmt.Sprint(i), 50)
		if i == 0 {
			<-asked
		}
	}
	close(release)
	f.mustFlush()
	sizes := f.transactions("orders")
	var want []string
	behind := 0
	for _, size := range sizes {
		behind += size
		want = append(want, f.position(behind).String())
	}
	if got := f.committed("state"); behind != events || !slices.Equal(got, want) {
		t.Errorf("positions are %v, want %v", got, want)
	}
	return sizes
}

// transactions returns how many records of partition 0 are in each committed transaction.
func (f *fixture) transactions(topic string) (sizes []int) {
	f.t.Helper()
	end := int64(-1)
	client := f.client(kgo.ConsumeTopics(topic), kgo.KeepControlRecords())
	size := 0
	for next := int64(0); end < 0 || next < end; {
		fetches := client.PollFetches(f.t.Context())
		if err := fetches.Err(); err != nil {
			f.t.Fatal(err)
		}
		fetches.EachPartition(func(p kgo.FetchTopicPartition) { end = p.HighWatermark })
		for _, r := range fetches.Records() {
			next = r.Offset + 1
			if !r.Attrs.IsControl() {
				size++
				continue
			}
			sizes, size = append(sizes, size), 0
		}
	}
	return sizes
}
