package main

import (
	"context"
	"errors"
	"io"
)

type demoCommand struct{}

func (c *demoCommand) execute(context.Context, io.Writer, io.Writer) error { return errors.New("soon") }
