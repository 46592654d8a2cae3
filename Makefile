# The commands of this repository. `make help` lists them.
SHELL       := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c

BIN           := bin
GOLANGCI_LINT := v2.15.0
GOFUMPT       := v0.12.0
FUZZTIME      ?= 30s
VERSION       := $(shell git describe --tags --dirty 2>/dev/null)
LDFLAGS       := -s -w $(if $(VERSION),-X main.release=$(VERSION))

# The race detector needs a C compiler; go says 0 where there is none.
RACE := $(if $(filter 1,$(shell go env CGO_ENABLED)),-race)

# A clone that belongs to somebody else, as in many containers, is one that git does not read and go does not stamp.
ifeq ($(shell git rev-parse HEAD 2>/dev/null),)
export GOFLAGS := $(GOFLAGS) -buildvcs=false
endif

.PHONY: help demo test test-unit test-integration test-all soak sim mutations bench lint build fuzz clean

help: ## Show this list.
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-18s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

demo: build ## Watch events flow from a Postgres to a Kafka broker, both started for it.
	@$(BIN)/walpost demo $(ARGS)

test: ## Prove it: every test, against real Postgres 14 to 18 and real Kafka. The last lines say what ran.
	@summary=$$(mktemp); trap 'rm -f "$$summary"' EXIT; unit=passed; integration=passed; \
	$(MAKE) --no-print-directory test-unit || unit=FAILED; \
	$(MAKE) --no-print-directory test-integration SUMMARY="$$summary" || integration=FAILED; \
	echo; echo "walpost packages: $$unit, $(if $(RACE),with,WITHOUT) the race detector$(if $(RACE),, (it needs a C compiler))"; \
	echo "walpost integration: $$integration"; cat "$$summary"; \
	[ "$$unit$$integration" = passedpassed ]

test-unit: ## The tests of the packages, with the race detector where there is a C compiler, and 4000 runs of the simulation.
	go test $(RACE) -timeout 20m $$(go list ./... | grep -v /integration$$)
	go test -timeout 20m ./internal/sim -run '^TestSimulation$$' -count=1 -seeds 4000

TIMEOUT ?= 40m
# Of those that may share the machine: most of their time is waiting.
PARALLEL ?= 4
# After the others and alone: some of these tests are timed.
test-integration: ## The built binary against real servers (TESTFLAGS='-v -run Name' for one test).
	@summary="$(SUMMARY)"; if [ -z "$$summary" ]; then summary=$$(mktemp); trap 'cat "$$summary"; rm -f "$$summary"' EXIT; fi; \
	WALPOST_TEST_SUMMARY="$$summary" go test $(RACE) -p 1 -parallel $(PARALLEL) -timeout $(TIMEOUT) -count=1 $(TESTFLAGS) ./integration

test-all: ## Every test, also those that take minutes, and a soak of five minutes: some hours, for the night.
	WALPOST_TEST_LONG=1 WALPOST_TEST_SOAK=5m $(MAKE) --no-print-directory test TIMEOUT=6h

DURATION ?= 1h
soak: SEED =
soak: ## Random faults of everything, under load, for DURATION (1h), from a random SEED. The log says what was done.
	WALPOST_TEST_SOAK=$(DURATION) WALPOST_TEST_SEED=$(SEED) go test ./integration -run '^TestSoak$$' -count=1 -timeout 0 -v

bench: ## Measure it against what Postgres and Kafka allow (ARGS='--growth', '--list', '--json FILE'): wants a quiet machine.
	go run ./integration/bench $(ARGS)

lint: $(BIN)/golangci-lint-$(GOLANGCI_LINT) $(BIN)/gofumpt-$(GOFUMPT) ## Formatting, vet, linters, and go.mod.
	@unformatted=$$($(BIN)/gofumpt-$(GOFUMPT) -l .); if [ -n "$$unformatted" ]; then echo "gofumpt wants:"; echo "$$unformatted"; exit 1; fi
	go vet ./...
	go mod tidy -diff
	$(BIN)/golangci-lint-$(GOLANGCI_LINT) run ./...

build: ## Build bin/walpost.
	CGO_ENABLED=0 go build -trimpath -ldflags '$(LDFLAGS)' -o $(BIN)/walpost ./cmd/walpost

fuzz: ## Fuzz each target for FUZZTIME (30s).
	go test ./decoder -run '^$$' -fuzz '^FuzzDecode$$' -fuzztime $(FUZZTIME) -fuzzminimizetime 50x
	go test ./decoder -run '^$$' -fuzz '^FuzzAgree$$' -fuzztime $(FUZZTIME) -fuzzminimizetime 50x
	go test ./sink -run '^$$' -fuzz '^FuzzHeaders$$' -fuzztime $(FUZZTIME) -fuzzminimizetime 50x

SEEDS ?= 100000
SEED  ?= 0
sim: ## Play SEEDS (100000) runs of the simulation, from SEED (0) on. A run that fails tells its story and its seed.
	go test ./internal/sim -run '^TestSimulation$$' -count=1 -timeout 24h -v -seeds $(SEEDS) -seed $(SEED)

mutations: ## Show that the simulation is sharp: it has to find each of some deliberate bugs.
	go test -tags mutation ./internal/sim -run '^TestMutations$$' -count=1 -timeout 1h -v

clean: ## Remove what was built.
	rm -rf $(BIN)

$(BIN)/golangci-lint-$(GOLANGCI_LINT):
	GOBIN=$(CURDIR)/$(BIN) go install github.com/golangci/golangci-lint/v2/cmd/golangci-lint@$(GOLANGCI_LINT)
	mv $(BIN)/golangci-lint $@

$(BIN)/gofumpt-$(GOFUMPT):
	GOBIN=$(CURDIR)/$(BIN) go install mvdan.cc/gofumpt@$(GOFUMPT)
	mv $(BIN)/gofumpt $@
