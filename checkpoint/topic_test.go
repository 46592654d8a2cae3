package checkpoint

import (
	"bytes"
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/rs/zerolog"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"
)

func TestStoreTopicIsCompactedAndOfOnePartition(t *testing.T) {
	t.Parallel()
	cluster, open := setup(t)
	s := open("1/a")
	expectLoad(t, s, State{}, false)
	admin := kadm.NewClient(s.client)
	configs, err := admin.DescribeTopicConfigs(t.Context(), "state")
	if err != nil {
		t.Fatal(err)
	}
	policy := ""
	for _, c := range configs[0].Configs {
		if c.Key == "cleanup.policy" {
			policy = c.MaybeValue()
		}
	}
	if policy != "compact" {
		t.Fatalf("cleanup.policy is %q, want compact", policy)
	}
	if _, err := admin.CreateTopic(t.Context(), 3, 1, nil, "wide"); err != nil {
		t.Fatal(err)
	}
	wide, err := NewStore([]kgo.Opt{kgo.SeedBrokers(cluster.ListenAddrs()...)}, "wide", "1/a", zerolog.Nop())
	if err != nil {
		t.Fatal(err)
	}
	defer wide.Close()
	var bad *TopicError
	if _, _, err := wide.Load(t.Context()); !errors.As(err, &bad) {
		t.Fatalf("Load of a topic with three partitions = %v, want a TopicError", err)
	}
}

func TestStoreWarnsOfATopicThatForgets(t *testing.T) {
	t.Parallel()
	cluster, open := setup(t)
	admin := kadm.NewClient(open("1/a").client)
	for policy, warns := range map[string]int{"delete": 1, "compact,delete": 1, "compact": 0} {
		topic := strings.ReplaceAll(policy, ",", "-")
		config := map[string]*string{"cleanup.policy": &policy}
		if _, err := admin.CreateTopic(t.Context(), 1, 1, config, topic); err != nil {
			t.Fatal(err)
		}
		var log bytes.Buffer
		s, err := NewStore([]kgo.Opt{kgo.SeedBrokers(cluster.ListenAddrs()...)}, topic, "1/a", zerolog.New(&log))
		if err != nil {
			t.Fatal(err)
		}
		expectLoad(t, s, State{}, false)
		expectLoad(t, s, State{}, false)
		s.Close()
		if n := strings.Count(log.String(), "forgets"); n != warns {
			t.Errorf("cleanup.policy %s: %d warnings, want %d: %s", policy, n, warns, log.String())
		}
	}
}

// TestStoreTopicMadeAgain: what was read of a topic is forgotten once another topic has its name,
// whether that is shorter or not.
func TestStoreTopicMadeAgain(t *testing.T) {
	t.Parallel()
	for name, after := range map[string][]State{
		"empty": nil, "shorter": {at(100)}, "longer": {at(100), at(200), at(300), at(250)},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			_, open := setup(t)
			s, other := open("1/a"), open("1/a")
			expectLoad(t, s, State{}, false)
			mustSave(t, s, at(400), at(500))
			expectLoad(t, s, at(500), true)
			if _, err := kadm.NewClient(open("1/a").client).DeleteTopic(t.Context(), "state"); err != nil {
				t.Fatal(err)
			}
			expectLoad(t, other, State{}, false) // it creates the topic
			mustSave(t, other, after...)
			var want State
			for _, state := range after {
				want.Overwritten = true
				if state.End > want.End {
					want = state
				}
			}
			time.Sleep(300 * time.Millisecond) // a client caches topics for 250 ms
			expectLoad(t, s, want, len(after) > 0)
		})
	}
}

// TestSaveIntoATopicMadeAgain: a topic that was deleted can be written again after a moment,
// whoever created it again.
func TestSaveIntoATopicMadeAgain(t *testing.T) {
	t.Parallel()
	for name, byAnother := range map[string]bool{"by another": true, "by itself": false} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			_, open := setup(t)
			s, other := open("1/a"), open("1/a")
			expectLoad(t, s, State{}, false)
			mustSave(t, s, at(400))
			if _, err := kadm.NewClient(other.client).DeleteTopic(t.Context(), "state"); err != nil {
				t.Fatal(err)
			}
			if byAnother {
				expectLoad(t, other, State{}, false)
			}
			ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
			defer cancel()
			err := s.Save(ctx, at(500))
			for err != nil && ctx.Err() == nil {
				err = s.Save(ctx, at(500))
			}
			if err != nil {
				t.Fatal(err)
			}
			expectLoad(t, open("1/a"), at(500), true)
		})
	}
}
