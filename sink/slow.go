package sink

import (
	"context"
	"fmt"
	"time"
)

// errSlow says that a transaction took too long.
var errSlow = fmt.Errorf("it was not sent within %s, and the brokers give it up", transactionTimeout)

// flushInTime returns when the brokers have all of the transaction. They abort one that takes too
// long, and the client may not learn of it, but send it from its beginning again and again. So it
// is given up here, unless no broker answers.
func (t *transactions) flushInTime() error {
	ctx, cancel := context.WithCancelCause(t.doomed)
	defer cancel(nil)
	began := time.Now()
	go func() {
		for sleep(ctx, time.Second) == nil {
			if up, _, _ := t.s.health.Look(); up && time.Since(began) > transactionTimeout {
				cancel(errSlow)
			}
		}
	}()
	if err := t.s.client.Flush(ctx); err != nil {
		return context.Cause(ctx)
	}
	return nil
}
