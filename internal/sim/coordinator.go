package sim

import (
	"context"
	"errors"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// requestWithin gives up with ctx, though the request may still be written.
func (c *client) requestWithin(ctx context.Context) bool {
	sent := make(chan bool, 1)
	c.work.Go(func() { sent <- c.request() })
	select {
	case ok := <-sent:
		return ok
	case <-ctx.Done():
		return false
	}
}

// ask is a request to the coordinator; it is repeated while nobody answers.
func (c *client) ask(ctx context.Context, f func() error) error {
	for c.ctx.Err() == nil && wait(ctx, c.k.pause(5*time.Millisecond)) {
		if c.requestWithin(ctx) {
			c.k.mu.Lock()
			if !c.k.down && !c.by.isDead() {
				err := f()
				c.k.mu.Unlock()
				return err
			}
			c.k.mu.Unlock()
		}
		if !wait(ctx, 250*time.Millisecond) {
			break
		}
	}
	return errUnreachable
}

func (c *client) ProducerID(ctx context.Context) (int64, int16, error) {
	c.mu.Lock()
	epoch := c.epoch
	c.mu.Unlock()
	if epoch == 0 {
		if err := c.ask(ctx, func() error { epoch = c.k.initialize(c.id); return nil }); err != nil {
			return 0, 0, err
		}
		c.mu.Lock()
		c.epoch = epoch
		c.mu.Unlock()
	}
	return 1, epoch, nil
}

func (c *client) BeginTransaction() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.inTxn {
		return errors.New("already in a transaction")
	}
	c.inTxn = true
	return nil
}

func (c *client) EndTransaction(ctx context.Context, commit kgo.TransactionEndTry) error {
	c.mu.Lock()
	if c.buffered > 0 {
		panic("the end of a transaction whose records are not flushed")
	}
	c.inTxn = false
	epoch := c.epoch
	c.mu.Unlock()
	err := c.ask(ctx, func() error {
		f := c.k.endFault
		c.k.endFault = none
		if f == swallowed {
			return errUnreachable
		}
		err := c.k.end(c.id, epoch, bool(commit))
		if err == nil && f == lost {
			return errUnreachable
		}
		return err
	})
	c.mu.Lock()
	defer c.mu.Unlock()
	c.epoch = epoch + 1
	return err
}

func (c *client) Request(ctx context.Context, req kmsg.Request) (kmsg.Response, error) {
	var resp kmsg.Response
	err := c.ask(ctx, func() error {
		switch req := req.(type) {
		case *kmsg.MetadataRequest:
			r := kmsg.NewPtrMetadataResponse()
			for range req.Topics {
				r.Topics = append(r.Topics, kmsg.NewMetadataResponseTopic())
			}
			resp = r
		case *kmsg.DescribeConfigsRequest:
			r := kmsg.NewPtrDescribeConfigsResponse()
			r.Resources = append(r.Resources, kmsg.NewDescribeConfigsResponseResource())
			resp = r
		case *kmsg.ApiVersionsRequest:
			r := kmsg.NewPtrApiVersionsResponse()
			feature := kmsg.NewApiVersionsResponseFinalizedFeature()
			feature.Name, feature.MaxVersionLevel = "transaction.version", 2
			r.FinalizedFeatures = append(r.FinalizedFeatures, feature)
			resp = r
		default:
			panic("a request that the simulation does not know")
		}
		return nil
	})
	return resp, err
}
