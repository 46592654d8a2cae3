package main

import (
	"context"
	"errors"
	"io"

	"github.com/walpost/walpost/internal/config"
)

type statusCommand struct {
	config.Config
	JSON bool `help:"Print JSON."`
}

func (c *statusCommand) execute(context.Context, io.Writer, io.Writer) error {
	return errors.New("soon")
}
