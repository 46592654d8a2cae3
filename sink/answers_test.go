package sink

import (
	"strings"
	"sync"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// refuse makes the cluster refuse every batch that holds the given text, and leave the partition as
// it is. The others of its request will be sent again.
func (f *fixture) refuse(text string, code int16) {
	f.cluster.ControlKey(int16(kmsg.Produce), func(req kmsg.Request) (kmsg.Response, error, bool) {
		f.cluster.KeepControl()
		r := req.(*kmsg.ProduceRequest)
		if !holds(r, text) {
			return nil, nil, false
		}
		return refusal(r, func(p *kmsg.ProduceResponseTopicPartition, records string) {
			p.ErrorCode = kerr.NotEnoughReplicas.Code
			if strings.Contains(records, text) {
				p.ErrorCode = code
			}
		}), nil, true
	})
}

// holds reports whether a produce request has a record with a text.
func holds(r *kmsg.ProduceRequest, text string) bool {
	for _, topic := range r.Topics {
		for _, p := range topic.Partitions {
			if strings.Contains(string(p.Records), text) {
				return true
			}
		}
	}
	return false
}

// refusal answers a produce request with what fill says of each partition and its records.
func refusal(r *kmsg.ProduceRequest, fill func(p *kmsg.ProduceResponseTopicPartition, records string)) kmsg.Response {
	resp := r.ResponseKind().(*kmsg.ProduceResponse)
	for _, topic := range r.Topics {
		answer := kmsg.NewProduceResponseTopic()
		answer.Topic, answer.TopicID = topic.Topic, topic.TopicID
		for _, asked := range topic.Partitions {
			p := kmsg.NewProduceResponseTopicPartition()
			p.Partition = asked.Partition
			fill(&p, string(asked.Records))
			answer.Partitions = append(answer.Partitions, p)
		}
		resp.Topics = append(resp.Topics, answer)
	}
	return resp
}

// waiting answers a produce request so that the client sends it again.
func waiting(r *kmsg.ProduceRequest) kmsg.Response {
	return refusal(r, func(p *kmsg.ProduceResponseTopicPartition, _ string) {
		p.ErrorCode = kerr.NotEnoughReplicas.Code
	})
}

// answer has the broker answer for a topic with a code, known or not, until the function that it
// returns is called.
func (f *fixture) answer(topic string, code int16) (heal func()) {
	return f.cluster.Fault(kfake.Fault{
		Keys: []kmsg.Key{kmsg.Produce}, Topic: topic, Err: &kerr.Error{Message: "?", Code: code}, Count: -1,
	}).Remove
}

// holdCommits has the broker keep its answer to each commit back until release is closed. asked is
// closed at the first one.
func (f *fixture) holdCommits() (asked, release chan struct{}) {
	asked, release = make(chan struct{}), make(chan struct{})
	ask := sync.OnceFunc(func() { close(asked) })
	f.cluster.ControlKey(int16(kmsg.EndTxn), func(kmsg.Request) (kmsg.Response, error, bool) {
		f.cluster.KeepControl()
		ask()
		f.cluster.SleepControl(func() { <-release })
		return nil, nil, false
	})
	return asked, release
}

// denyTopics answers a request for metadata with a code for each topic.
func denyTopics(req kmsg.Request, code int16) kmsg.Response {
	asked := req.(*kmsg.MetadataRequest)
	resp := asked.ResponseKind().(*kmsg.MetadataResponse)
	for _, t := range asked.Topics {
		topic := kmsg.NewMetadataResponseTopic()
		topic.Topic, topic.TopicID, topic.ErrorCode = t.Topic, t.TopicID, code
		resp.Topics = append(resp.Topics, topic)
	}
	return resp
}
