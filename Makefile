# The commands of this repository. `make help` lists them.
SHELL       := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c

BIN           := bin
GOLANGCI_LINT := v2.15.0
GOFUMPT       := v0.12.0
FUZZTIME      ?= 30s
VERSION       := $(shell git describe --tags --dirty 2>/dev/null)
LDFLAGS       := -s -w $(if $(VERSION),-X main.release=$(VERSION))

.PHONY: help demo test test-unit test-integration lint build fuzz clean

help: ## Show this list.
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-18s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

demo: build ## Watch events flow from a Postgres to a Kafka broker, both started for it.
	@$(BIN)/walpost demo $(ARGS)

test: test-unit test-integration ## Prove it: every test, against real Postgres 14 to 18 and real Kafka.

test-unit: ## The tests of the packages, with the race detector.
	go test -race -timeout 15m $$(go list ./... | grep -v /integration$$)

test-integration: ## The built binary against real servers. The last lines say what ran against what.
	@summary=$$(mktemp); trap 'rm -f "$$summary"' EXIT; \
	code=0; WALPOST_TEST_SUMMARY="$$summary" go test -timeout 40m -count=1 $(TESTFLAGS) ./integration || code=$$?; \
	cat "$$summary"; exit $$code

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

clean: ## Remove what was built.
	rm -rf $(BIN)

$(BIN)/golangci-lint-$(GOLANGCI_LINT):
	GOBIN=$(CURDIR)/$(BIN) go install github.com/golangci/golangci-lint/v2/cmd/golangci-lint@$(GOLANGCI_LINT)
	mv $(BIN)/golangci-lint $@

$(BIN)/gofumpt-$(GOFUMPT):
	GOBIN=$(CURDIR)/$(BIN) go install mvdan.cc/gofumpt@$(GOFUMPT)
	mv $(BIN)/gofumpt $@
