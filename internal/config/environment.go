package config

import (
	"fmt"
	"reflect"
	"slices"
	"strings"

	"github.com/alecthomas/kong"
)

// prefix begins the variable of every setting.
const prefix = "WALPOST_"

// elsewhere are variables and prefixes of variables that the demo, the servers that it downloads
// and the tests read.
var elsewhere = []string{"WALPOST_CACHE", "WALPOST_DEMO_", "WALPOST_TEST_", "WALPOST_INTEGRATION_", "WALPOST_PGSERVER_"}

// settings are the flags that Config declares, and how their fields are made.
func settings() (map[string]reflect.Kind, error) {
	own, err := kong.New(&Config{}, kong.NoDefaultHelp())
	if err != nil {
		return nil, err
	}
	kinds := map[string]reflect.Kind{}
	for _, flag := range own.Model.Flags {
		kinds[flag.Name] = flag.Target.Kind()
	}
	return kinds, nil
}

// UnknownVariables lists the variables of an environment that look like settings but are not, each
// with the one that was probably meant. It repeats no value, and leaves out what Kubernetes injects
// for a Service.
func UnknownVariables(environ []string) ([]string, error) {
	flags, err := settings()
	if err != nil {
		return nil, fmt.Errorf("list settings: %w", err)
	}
	known := []string{passwordVariable}
	for flag := range flags {
		known = append(known, variable(flag))
	}
	var names []string
	for _, entry := range environ {
		if name, _, _ := strings.Cut(entry, "="); strings.HasPrefix(name, prefix) {
			names = append(names, name)
		}
	}
	injectors := services(names)
	var unknown []string
	for _, name := range names {
		kubernetes := slices.ContainsFunc(injectors, func(s string) bool { return injected(s, name) })
		if slices.Contains(known, name) || readElsewhere(name) || kubernetes {
			continue
		}
		if meant := closest(name, known); meant != "" {
			name = fmt.Sprintf("%s (did you mean %s?)", name, meant)
		}
		unknown = append(unknown, name)
	}
	slices.Sort(unknown)
	return slices.Compact(unknown), nil
}

func readElsewhere(name string) bool {
	return slices.ContainsFunc(elsewhere, func(other string) bool {
		return name == other || strings.HasSuffix(other, "_") && strings.HasPrefix(name, other)
	})
}

// services are the Services that Kubernetes injected variables for, such as walpost and
// walpost-metrics: each has a host.
func services(names []string) []string {
	var found []string
	for _, name := range names {
		if service, ok := strings.CutSuffix(name, "_SERVICE_HOST"); ok {
			found = append(found, service)
		}
	}
	return found
}

// injected tells whether Kubernetes makes this variable for a Service.
func injected(service, name string) bool {
	rest, ok := strings.CutPrefix(name, service+"_")
	return ok && (rest == "SERVICE_HOST" || rest == "PORT" || strings.HasPrefix(rest, "PORT_") ||
		rest == "SERVICE_PORT" || strings.HasPrefix(rest, "SERVICE_PORT_"))
}
