package servers

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"
	"sync/atomic"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// EventPartitions is the default number of partitions of every broker that the harness starts.
const EventPartitions = 6

// fakeProcess is the other end of Fake: it runs the broker and carries out commands until its input
// ends, which it also does when the parent dies.
type fakeProcess struct {
	cluster   *kfake.Cluster
	faults    []*kfake.FaultHandle
	swallow   atomic.Bool
	swallowed atomic.Int64

	end      atomic.Value // string: what becomes of the end of a transaction
	endLeft  atomic.Int64
	endInner atomic.Bool // the request is our own
}

// runFake returns when the input has ended.
func runFake(port string, input io.Reader, output io.Writer) error {
	number, err := strconv.Atoi(port)
	if err != nil {
		return fmt.Errorf("read port of fake broker: %w", err)
	}
	cluster, err := kfake.NewCluster(
		kfake.NumBrokers(1), kfake.Ports(number), kfake.DefaultNumPartitions(EventPartitions),
		kfake.DataDir(os.Getenv(fakeDir)), kfake.SyncWrites(),
	)
	if err != nil {
		return fmt.Errorf("start fake broker: %w", err)
	}
	defer cluster.Close()
	p := &fakeProcess{cluster: cluster}
	cluster.ControlKey(int16(kmsg.Produce), func(kmsg.Request) (kmsg.Response, error, bool) {
		cluster.KeepControl()
		if !p.swallow.Load() {
			return nil, nil, false
		}
		p.swallowed.Add(1)
		return nil, nil, true // handled, with nothing to say
	})

	cluster.ControlKey(int16(kmsg.EndTxn), func(req kmsg.Request) (kmsg.Response, error, bool) {
		cluster.KeepControl()
		resp, handled, err := p.endTransaction(req.(*kmsg.EndTxnRequest))
		return resp, err, handled
	})

	commands, answers := json.NewDecoder(input), json.NewEncoder(output)
	answer := fakeAnswer{} // to the start itself
	for {
		if err := answers.Encode(answer); err != nil {
			return fmt.Errorf("answer: %w", err)
		}
		var command fakeCommand
		if err := commands.Decode(&command); errors.Is(err, io.EOF) {
			return nil
		} else if err != nil {
			return fmt.Errorf("read command: %w", err)
		}
		answer = p.carryOut(command)
	}
}

func (p *fakeProcess) carryOut(command fakeCommand) fakeAnswer {
	switch command.Op {
	case "fail":
		known := kerr.TypedErrorForCode(command.Code)
		if known == nil {
			return fakeAnswer{Error: fmt.Sprintf("code %d is not an error of Kafka", command.Code)}
		}
		fault := kfake.Fault{Keys: []kmsg.Key{kmsg.Produce}, Topic: command.Topic, Count: command.Count, Err: known}
		p.faults = append(p.faults, p.cluster.Fault(fault))
	case "end":
		p.end.Store(command.End)
		p.endLeft.Store(int64(command.Count))
	case "blackhole":
		p.swallow.Store(true)
	case "heal":
		for _, fault := range p.faults {
			fault.Remove()
		}
		p.faults = nil
		p.swallow.Store(false)
		p.endLeft.Store(0)
		p.swallowed.Store(0)
	case "hits":
		hits := int(p.swallowed.Load())
		for _, fault := range p.faults {
			hits += fault.Hits()
		}
		return fakeAnswer{Hits: hits}
	default:
		return fakeAnswer{Error: fmt.Sprintf("unknown command %q", command.Op)}
	}
	return fakeAnswer{}
}

// endTransaction is the control of the requests to end a transaction.
func (p *fakeProcess) endTransaction(req *kmsg.EndTxnRequest) (resp kmsg.Response, handled bool, err error) {
	left := p.endLeft.Load()
	if left == 0 || p.endInner.Load() {
		return nil, false, nil
	}
	if left > 0 {
		p.endLeft.Add(-1)
	}
	p.swallowed.Add(1)
	how := p.end.Load()
	if how == EndLost || how == EndDenied {
		p.cluster.SleepControl(func() { p.carryOutEnd(req) })
	}
	switch how {
	case EndLost:
		return nil, true, errors.New("the answer is lost")
	case EndSwallowed:
		return nil, true, nil
	default:
		refused := req.ResponseKind().(*kmsg.EndTxnResponse)
		refused.ErrorCode = kerr.UnknownServerError.Code
		return refused, true, nil
	}
}

// carryOutEnd sends the same request once more, past the control.
func (p *fakeProcess) carryOutEnd(req *kmsg.EndTxnRequest) {
	p.endInner.Store(true)
	defer p.endInner.Store(false)
	client, err := kgo.NewClient(kgo.SeedBrokers(p.cluster.ListenAddrs()...))
	if err != nil {
		return
	}
	defer client.Close()
	again := kmsg.NewPtrEndTxnRequest()
	again.TransactionalID, again.ProducerID, again.ProducerEpoch, again.Commit = req.TransactionalID, req.ProducerID, req.ProducerEpoch, req.Commit
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	// What becomes of it shows in the records.
	_, _ = again.RequestWith(ctx, client)
}
