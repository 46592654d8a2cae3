package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"

	"github.com/walpost/walpost/internal/config"
	"github.com/walpost/walpost/internal/relay"
)

// brokersTime is how long a command waits for the brokers.
const brokersTime = 20 * time.Second

// explain asks the brokers why they did not serve a command in time. If they refused it, the error
// already says why.
func explain(ctx context.Context, cfg config.Config, system string, err error) error {
	if errors.Is(err, kerr.SaslAuthenticationFailed) {
		return fmt.Errorf("the login of %s is refused: %w", cfg.KafkaLogin(), err)
	}
	var refused *kerr.Error
	if err == nil || ctx.Err() != nil || errors.As(err, &refused) && !refused.Retriable {
		return err
	}
	options, optionsErr := cfg.KafkaOptions()
	dial, dialErr := cfg.KafkaDialer()
	if optionsErr != nil || dialErr != nil {
		return err
	}
	inquiry := relay.Inquiry{Kafka: options, Dial: dial, StateTopic: cfg.StateTopic}
	if cfg.Delivery == config.ExactlyOnce && system != "" {
		inquiry.ID = relay.TransactionalID(system + "/" + cfg.Slot)
	}
	return inquiry.Explain(ctx, err)
}
