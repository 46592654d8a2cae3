package servers

import (
	"context"
	"fmt"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// WaitInSync returns when every broker is known to the others and every replica of every partition
// is in sync. A port that accepts says less: a test that takes one broker away while another still
// catches up leaves a partition without a leader, and then waits for ever.
func (k *Kafka) WaitInSync(ctx context.Context) error {
	client, err := kgo.NewClient(kgo.SeedBrokers(k.Brokers()...))
	if err != nil {
		return fmt.Errorf("create kafka client: %w", err)
	}
	defer client.Close()
	ticker := time.NewTicker(100 * time.Millisecond)
	defer ticker.Stop()
	for {
		request := kmsg.NewPtrMetadataRequest() // without topics: all of them
		response, err := request.RequestWith(ctx, client)
		if err == nil && len(response.Brokers) == len(k.nodes) && inSync(response) {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("wait for replicas to be in sync: %w: %s", ctx.Err(), k.LogTail())
		case <-ticker.C:
		}
	}
}

func inSync(response *kmsg.MetadataResponse) bool {
	for _, topic := range response.Topics {
		for _, partition := range topic.Partitions {
			if partition.ErrorCode != 0 || len(partition.ISR) < len(partition.Replicas) {
				return false
			}
		}
	}
	return true
}
