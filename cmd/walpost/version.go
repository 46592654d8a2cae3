package main

import (
	"context"
	"fmt"
	"io"
	"runtime"
	"runtime/debug"
)

// release is set by the build of a release: -ldflags "-X main.release=1.2.3".
var release string

// version returns the release, or the commit that a development build was made from.
func version() string {
	if release != "" {
		return release
	}
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return "development"
	}
	for _, s := range info.Settings {
		if s.Key == "vcs.revision" {
			return "development " + s.Value[:min(12, len(s.Value))]
		}
	}
	return "development"
}

// versionLine is what `walpost version` and `walpost --version` print.
func versionLine() string {
	return fmt.Sprintf("walpost %s (%s %s/%s)", version(), runtime.Version(), runtime.GOOS, runtime.GOARCH)
}

type versionCommand struct{}

func (c *versionCommand) execute(_ context.Context, stdout, _ io.Writer) error {
	_, err := fmt.Fprintln(stdout, versionLine())
	return err
}
