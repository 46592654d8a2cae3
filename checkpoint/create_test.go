package checkpoint

import (
	"bytes"
	"errors"
	"strings"
	"testing"

	"github.com/rs/zerolog"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// rule returns with which code and reason a cluster refuses a topic; 0 = it accepts it.
type rule func(asked *kmsg.CreateTopicsRequestTopic) (code int16, says string)

// setting returns a setting of the topic that is to be created; empty = not set.
func setting(asked *kmsg.CreateTopicsRequestTopic, name string) string {
	for _, c := range asked.Configs {
		if c.Name == name && c.Value != nil {
			return *c.Value
		}
	}
	return ""
}

// follow makes a fake cluster follow a rule, and returns the topics that it was asked to create.
func follow(cluster *kfake.Cluster, rule rule) *[]kmsg.CreateTopicsRequestTopic {
	asked := &[]kmsg.CreateTopicsRequestTopic{}
	cluster.ControlKey(int16(kmsg.CreateTopics), func(req kmsg.Request) (kmsg.Response, error, bool) {
		cluster.KeepControl()
		topic := req.(*kmsg.CreateTopicsRequest).Topics[0]
		*asked = append(*asked, topic)
		code, says := rule(&topic)
		if code == 0 {
			return nil, nil, false
		}
		resp := req.ResponseKind().(*kmsg.CreateTopicsResponse)
		refused := kmsg.NewCreateTopicsResponseTopic()
		refused.Topic, refused.ErrorCode, refused.ErrorMessage = topic.Topic, code, &says
		resp.Topics = append(resp.Topics, refused)
		return resp, nil, true
	})
	return asked
}

// TestFussyClusters: managed clusters refuse settings, or a number of replicas. Any state topic
// that is compacted is good enough.
func TestFussyClusters(t *testing.T) {
	t.Parallel()
	const noSegments = "nobody sets segments here"
	nothing := func(*kmsg.CreateTopicsRequestTopic) (int16, string) { return 0, "" }
	segments := func(code int16) rule {
		return func(asked *kmsg.CreateTopicsRequestTopic) (int16, string) {
			if setting(asked, "segment.bytes") != "" || setting(asked, "segment.ms") != "" {
				return code, noSegments
			}
			return 0, ""
		}
	}
	replicas := func(code int16) rule {
		return func(asked *kmsg.CreateTopicsRequestTopic) (int16, string) {
			if asked.ReplicationFactor < 3 {
				return code, "three replicas, or none"
			}
			return 0, ""
		}
	}
	both := func(asked *kmsg.CreateTopicsRequestTopic) (int16, string) {
		if code, says := segments(kerr.InvalidConfig.Code)(asked); code != 0 {
			return code, says
		}
		return replicas(kerr.InvalidReplicationFactor.Code)(asked)
	}
	for name, c := range map[string]struct {
		rule     rule
		requests int
		settings int
		replicas int16
		says     string
	}{
		"settings: INVALID_CONFIG":             {segments(kerr.InvalidConfig.Code), 2, 1, -1, noSegments},
		"settings: INVALID_REQUEST":            {segments(kerr.InvalidRequest.Code), 2, 1, -1, noSegments},
		"settings: POLICY_VIOLATION":           {segments(kerr.PolicyViolation.Code), 2, 1, -1, noSegments},
		"replicas: INVALID_REPLICATION_FACTOR": {replicas(kerr.InvalidReplicationFactor.Code), 2, 4, 3, "three"},
		"replicas: POLICY_VIOLATION":           {replicas(kerr.PolicyViolation.Code), 3, 1, 3, "three replicas"},
		"both":                                 {both, 3, 1, 3, noSegments},
		"nothing":                              {nothing, 1, 4, -1, ""},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			cluster, err := kfake.NewCluster(kfake.NumBrokers(3))
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(cluster.Close)
			asked := follow(cluster, c.rule)
			var log bytes.Buffer
			s, err := NewStore([]kgo.Opt{kgo.SeedBrokers(cluster.ListenAddrs()...)}, "state", "1/a", zerolog.New(&log))
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(s.Close)
			expectLoad(t, s, State{}, false)
			mustSave(t, s, at(100))
			expectLoad(t, s, at(100), true)
			last := (*asked)[len(*asked)-1]
			if len(*asked) != c.requests || len(last.Configs) != c.settings || last.ReplicationFactor != c.replicas {
				t.Errorf("%d requests, the last with %d settings and %d replicas, want %d, %d, %d",
					len(*asked), len(last.Configs), last.ReplicationFactor, c.requests, c.settings, c.replicas)
			}
			configs, err := kadm.NewClient(s.client).DescribeTopicConfigs(t.Context(), "state")
			if err != nil {
				t.Fatal(err)
			}
			for _, config := range configs[0].Configs {
				if config.Key == "cleanup.policy" && config.MaybeValue() != "compact" {
					t.Errorf("cleanup.policy is %q", config.MaybeValue())
				}
			}
			said := log.String()
			if strings.Contains(said, `"warn"`) != (c.says != "") || !strings.Contains(said, c.says) {
				t.Errorf("the log says:\n%s\nwant a warning with %q", said, c.says)
			}
		})
	}
}

// TestStateTopicRefused: the brokers refuse the topic in every shape. The error has their reason.
func TestStateTopicRefused(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		code     *kerr.Error
		says     string
		requests int
	}{
		"a policy":        {kerr.PolicyViolation, "topics begin with the name of a team", 3},
		"a collision":     {kerr.InvalidTopicException, "Topic 'state' collides with existing topics: sta.te", 1},
		"too few brokers": {kerr.InvalidReplicationFactor, "only 1 broker(s) are registered", 2},
		"without right":   {kerr.TopicAuthorizationFailed, "Authorization failed.", 1},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			cluster, open := setup(t)
			asked := follow(cluster, func(*kmsg.CreateTopicsRequestTopic) (int16, string) {
				return c.code.Code, c.says
			})
			_, _, err := open("1/a").Load(t.Context())
			var refused *CreateError
			want := c.code.Message + ": " + c.says
			if !errors.As(err, &refused) || !errors.Is(err, c.code) || !strings.Contains(err.Error(), want) {
				t.Errorf("Load = %v, want %s", err, want)
			}
			if len(*asked) != c.requests {
				t.Errorf("%d requests, want %d", len(*asked), c.requests)
			}
		})
	}
}

// TestThreeReplicasAreAGuess: a policy refuses the topic, and there are too few brokers for three
// replicas. The policy counts.
func TestThreeReplicasAreAGuess(t *testing.T) {
	t.Parallel()
	cluster, open := setup(t)
	follow(cluster, func(asked *kmsg.CreateTopicsRequestTopic) (int16, string) {
		if asked.ReplicationFactor > 1 {
			return kerr.InvalidReplicationFactor.Code, "only 1 broker(s) are registered"
		}
		return kerr.PolicyViolation.Code, "topics begin with the name of a team"
	})
	_, _, err := open("1/a").Load(t.Context())
	if !errors.Is(err, kerr.PolicyViolation) || !strings.Contains(err.Error(), "the name of a team") {
		t.Errorf("Load = %v, want POLICY_VIOLATION", err)
	}
}

// TestLastRefusalCounts: the brokers refuse the settings, and then too few of them are up. That is
// an outage, not a case for an operator.
func TestLastRefusalCounts(t *testing.T) {
	t.Parallel()
	cluster, open := setup(t)
	follow(cluster, func(asked *kmsg.CreateTopicsRequestTopic) (int16, string) {
		if len(asked.Configs) > 1 {
			return kerr.InvalidConfig.Code, "nobody sets segments here"
		}
		return kerr.InvalidReplicationFactor.Code, "only 1 broker(s) are registered"
	})
	if _, _, err := open("1/a").Load(t.Context()); !errors.Is(err, kerr.InvalidReplicationFactor) {
		t.Errorf("Load = %v, want INVALID_REPLICATION_FACTOR", err)
	}
}
