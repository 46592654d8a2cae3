package config

import (
	"slices"
	"testing"
)

func TestUnknownVariables(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name    string
		environ []string
		want    []string
	}{
		{"every setting", []string{"WALPOST_SLOT=a", "WALPOST_CONFIG=b", "WALPOST_KAFKA_SASL_PASSWORD=c", "WALPOST_KAFKA_CA_FILE=d"}, nil},
		{"not ours", []string{"HOME=/", "MY_WALPOST_X=1", "PGHOST=x"}, nil},
		{"read elsewhere", []string{"WALPOST_CACHE=a", "WALPOST_DEMO_HTTP_ADDR=b", "WALPOST_TEST_POSTGRES_14=c"}, nil},
		{"near", []string{"WALPOST_KAFKA_BROKER=secret", "WALPOST_BROKERS=x", "WALPOST_POSTGRES_DSN=x", "WALPOST_LOGLEVEL=x"}, []string{
			"WALPOST_BROKERS (did you mean WALPOST_KAFKA_BROKERS?)", "WALPOST_KAFKA_BROKER (did you mean WALPOST_KAFKA_BROKERS?)",
			"WALPOST_LOGLEVEL (did you mean WALPOST_LOG_LEVEL?)", "WALPOST_POSTGRES_DSN (did you mean WALPOST_POSTGRES_URL?)",
		}},
		{"far", []string{"WALPOST_CACHE_DIR=x", "WALPOST_KAFKA=x", "WALPOST_REGION=x"}, []string{"WALPOST_CACHE_DIR", "WALPOST_KAFKA", "WALPOST_REGION"}},
		{"the Service walpost", []string{
			"WALPOST_SERVICE_HOST=10.0.0.1", "WALPOST_SERVICE_PORT=80", "WALPOST_SERVICE_PORT_HTTP=80", "WALPOST_PORT=tcp://10.0.0.1:80",
			"WALPOST_PORT_80_TCP=x", "WALPOST_PORT_80_TCP_ADDR=x",
		}, nil},
		{"a Service walpost-metrics", []string{"WALPOST_METRICS_SERVICE_HOST=10.0.0.1", "WALPOST_METRICS_PORT_80_TCP=x", "WALPOST_METRICS_PORT=x"}, nil},
		{"a port without a Service", []string{"WALPOST_METRICS_PORT=x", "WALPOST_PORT=80"}, []string{"WALPOST_METRICS_PORT", "WALPOST_PORT"}},
		{"twice", []string{"WALPOST_REGION=x", "WALPOST_REGION=y"}, []string{"WALPOST_REGION"}},
	}
	for _, test := range tests {
		got, err := UnknownVariables(test.environ)
		if err != nil || !slices.Equal(got, test.want) {
			t.Errorf("%s: got %q, %v, want %q", test.name, got, err, test.want)
		}
	}
}
