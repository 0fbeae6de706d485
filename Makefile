# backout. `make` alone lists the targets.

SHELL := /bin/bash
.DEFAULT_GOAL := help

# Tools that are built with Go, pinned here.
PROMTOOL3 := github.com/prometheus/prometheus/cmd/promtool@v0.316.0
COMPOSE2  := github.com/docker/compose/v2@v2.40.3
GOLANGCI  := github.com/golangci/golangci-lint/v2/cmd/golangci-lint@v2.15.0
VULNCHECK := golang.org/x/vuln/cmd/govulncheck@v1.9.0
NFPM      := github.com/goreleaser/nfpm/v2/cmd/nfpm@v2.45.2
KUSTOMIZE := sigs.k8s.io/kustomize/kustomize/v5@v5.8.2
CYCLONEDX := github.com/CycloneDX/cyclonedx-gomod/cmd/cyclonedx-gomod@v1.10.0

# A clone without usable git (another owner, an export) builds too. Without its path in what is built, one clone's build cache
# serves the next.
export GOFLAGS := $(strip $(GOFLAGS) -buildvcs=false -trimpath)
export PATH := $(CURDIR)/.cache/bin:$(PATH)

# If the machine has no CA certificates, deploy/dev/tools.sh fetches them.
ifeq ($(wildcard /etc/ssl/certs/ca-certificates.crt)$(SSL_CERT_DIR),)
export SSL_CERT_DIR := $(CURDIR)/.cache/debian/root/usr/share/ca-certificates/mozilla
endif

VERSION  := $(shell git describe --tags --always --dirty 2>/dev/null || echo unknown)
REVISION := $(shell git rev-parse HEAD 2>/dev/null || echo unknown)
BRANCH   := $(shell git rev-parse --abbrev-ref HEAD 2>/dev/null || echo unknown)
INFO     := github.com/prometheus/common/version
LDFLAGS  := -X $(INFO).Version=$(VERSION) -X $(INFO).Revision=$(REVISION) -X $(INFO).Branch=$(BRANCH)

# make demo ONCE=1 ends without a key press; SCENARIO picks the story.
DEMOFLAGS := $(if $(ONCE),--once) $(if $(SCENARIO),--scenario=$(SCENARIO))

.PHONY: help
help: ## List the targets
	@echo 'backout: automatic rollback for canary releases. Targets:'
	@sed -nE 's/^([a-z0-9-]+):.*## (.*)/  \1|\2/p' Makefile | awk -F'|' '{printf "%-18s %s\n", $$1, $$2}'

.PHONY: build
build: go ## Build bin/backout
	@CGO_ENABLED=0 go build -ldflags '$(LDFLAGS)' -o bin/backout ./cmd/backout

.PHONY: demo
demo: tools build $(if $(filter kubernetes,$(SCENARIO)),kubelab) ## Show the whole loop on this machine (ONCE=1: then exit)
	@CGO_ENABLED=0 go build -o bin/demo ./deploy/demo/cmd
	@deploy/dev/engine.sh with deploy/dev/postgres.sh with $(if $(filter kubernetes,$(SCENARIO)),deploy/dev/kube.sh with) bin/demo $(DEMOFLAGS)

# Tests run without the race detector, the longest package first, so that none is left to run alone. With it run the other
# packages that have goroutines, and of RACED the tests in which something runs at the same time. What is C translated to Go
# is three times as slow with it; SQLite's driver, which is Go, has it: a package without it hides what sync.Map does from
# the others.
# The tests against the Docker engine wait for half of their time: they run at the same time as those with the race
# detector, which do not. The tests of the whole stack have the machine to themselves: they wait for it.
PLAIN := ./cmd/backout ./remediation/kubernetes ./receiver ./remediation/postgres ./rules ./remediation/engine ./remediation/store \
  ./remediation/unleash ./remediation/backtest ./deploy/kubernetes ./remediation/scenario ./deploy/kube/kubetest ./alerts ./remediation \
  ./remediation/action ./remediation/action/actiontest
RACED := ./remediation/engine ./receiver ./remediation/store ./remediation/backtest
NORACE := $(foreach p,sqlite/lib libc/... memory/...,-gcflags='modernc.org/$(p)=-race=false')
CONCURRENT = $$(awk '/^func / {name = $$2} /go func|\.Go\(|running\(t|watching\(t|\.preflight\(\)|newRehearsalHarness\(|SQLiteIsAStore|TwoStores|oneFails|commitFails|connectionLost|viewCancelled|InMemory|Interrupted/ && name ~ /^Test/ {print substr(name, 1, index(name, "(") - 1)}' $(RACED:=/*_test.go) | sort -u | paste -sd'|')
OTHERS = $(filter-out $(PLAIN) ./deploy/demo ./remediation/docker ./remediation/swarm,$(patsubst github.com/locotoki/backout/%,./%,$(shell go list ./...)))
# The folders of what may run at the same time as something else.
BUSY = $(shell grep -rlE --include='*.go' --exclude-dir=.cache '\bgo func|^\s*go [a-z]|\.Go\b|sync|http\.' . | xargs -n1 dirname | sort -u)

# Packages tested in parallel: the tests mostly wait for real programs. make lint has vet's checks. Without what a debugger
# needs, a test is linked in two thirds of the time.
PACKAGES ?= $(shell echo $$(( $$(nproc) + 2 )))
GOTEST := go test -vet=off -ldflags='-s -w' -p $(PACKAGES) -timeout 60m
# The tests of a release take what `make dist` built.
DISTTEST := go test -count=1 -tags=dist -timeout 60m ./deploy/dist
WITH := deploy/dev/ram.sh deploy/dev/engine.sh with deploy/dev/postgres.sh with

# Otherwise a sixth of the CPU time of tests and linter would go into collecting garbage.
test test-long lint: export GOGC := 400
# As make build has it, whose packages serve the tests then. The race detector needs the other.
test test-long lint generate check-generated: export CGO_ENABLED := 0

# What both test targets run, with one engine, database and API server; SHORT is -short or nothing.
.PHONY: tests tests-race tests-docker
tests:
	@$(GOTEST) $(SHORT) $(PLAIN) $(filter-out $(BUSY),$(OTHERS))
	@$(MAKE) --no-print-directory -j2 -Otarget tests-docker tests-race
	@$(GOTEST) $(SHORT) ./deploy/demo

tests-docker:
	@$(GOTEST) $(SHORT) ./remediation/docker

tests-race:
	@CGO_ENABLED=1 $(GOTEST) $(SHORT) -race $(NORACE) -run "^($(CONCURRENT))$$" $(RACED)
	@CGO_ENABLED=1 $(GOTEST) $(SHORT) -race $(NORACE) ./remediation/lease $(filter-out ./remediation/lease,$(filter $(BUSY),$(OTHERS)))

.PHONY: test
test: tools promtool3 compose2 kubelab kustomize ## Run all tests but Swarm's, with crashes at a sample of the crash points
	@$(WITH) deploy/dev/kube.sh with $(MAKE) --no-print-directory tests SHORT=-short

# TestAProcessWhoseClockIsOff (tag dist) builds a standard library of its own, and all that uses it.
.PHONY: test-long
test-long: tools promtool3 compose2 kubelab kustomize dist ## Run all tests, with crashes at every crash point, and dist-check's
	@$(WITH) $(GOTEST) -tags=dist ./cmd/backout -run TestAProcessWhoseClockIsOff
	@$(WITH) deploy/dev/swarm.sh with $(GOTEST) ./remediation/swarm
	@$(WITH) $(DISTTEST)
	@$(WITH) deploy/dev/kube.sh with $(MAKE) --no-print-directory tests

.PHONY: bench
bench: tools compose2 ## Print the benchmarks as a table (without the race detector)
	@deploy/dev/engine.sh with deploy/dev/postgres.sh with go test -run '^$$' -bench . -benchtime 1x -timeout 60m ./deploy/demo/ ./cmd/backout/ ./remediation/backtest/
	@go test -run '^$$' -bench Accept -benchtime 1x -timeout 30m ./remediation/store/

.PHONY: lint
lint: go golangci-lint ## Run the linter (.golangci.yml), which runs go vet's checks too
	@golangci-lint run ./...

# The reference pages are golden files of this test, which has the command line's model and the types.
REFERENCE = $(GOTEST) -count=1 ./cmd/backout -run '^TestReferencePagesMatchTheCode$$'

.PHONY: generate
generate: build ## Write the generated files: rules, dashboards, and docs/reference
	@bin/backout rules generate
	@$(REFERENCE) -update

.PHONY: check-generated
check-generated: build ## Fail if a generated file is out of date
	@bin/backout rules generate --check
	@$(REFERENCE)

# What build.sh wants to know of the commit.
export VERSION REVISION
export COMPOSE := $(COMPOSE2)
export SOURCE_DATE_EPOCH ?= $(shell git log -1 --format=%ct 2>/dev/null || echo 0)

.PHONY: dist
dist: go nfpm cyclonedx ## Build the release into dist/: programs, packages, images, SBOMs, sums
	@deploy/dist/build.sh dist

.PHONY: dist-check
dist-check: tools dist ## Build the release again, compare the bytes, and install and run what is in dist/
	@deploy/dev/ram.sh deploy/dev/engine.sh with $(DISTTEST)

.PHONY: vuln
vuln: go ## Check the dependencies against Go's vulnerability database (needs network access)
	@deploy/dev/go.sh install govulncheck $(VULNCHECK)
	@govulncheck ./...

.PHONY: clean
clean: ## Stop the private engine, database and API server, and remove all build output and data of this checkout
	@deploy/dev/engine.sh stop
	@deploy/dev/postgres.sh stop
	@deploy/dev/kube.sh stop
	@rm -rf bin dist .cache .demo data

# What the targets above need; each is quick if it was done before.

.PHONY: go
go:
	@deploy/dev/go.sh check

.PHONY: tools
tools: go
	@deploy/dev/tools.sh

.PHONY: promtool3
promtool3: go
	@deploy/dev/go.sh install promtool3 $(PROMTOOL3) -tags=remove_all_sd

# In addition to Debian's docker-compose 1.29, the first generation.
.PHONY: compose2
compose2: go
	@deploy/dev/go.sh build docker-compose2 $(COMPOSE2) '-ldflags=-s -w -X $(word 1,$(subst @, ,$(COMPOSE2)))/internal.Version=$(word 2,$(subst @, ,$(COMPOSE2)))' ./cmd

# A Kubernetes API server. The first time, this takes about 9 minutes.
.PHONY: kubelab
kubelab: go
	@deploy/dev/go.sh folder kubelab deploy/kube/apiserver

.PHONY: golangci-lint
golangci-lint: go
	@deploy/dev/go.sh install golangci-lint $(GOLANGCI)

.PHONY: nfpm
nfpm: go
	@deploy/dev/go.sh install nfpm $(NFPM)

.PHONY: kustomize
kustomize: go
	@deploy/dev/go.sh install kustomize $(KUSTOMIZE)

.PHONY: cyclonedx
cyclonedx: go
	@deploy/dev/go.sh install cyclonedx-gomod $(CYCLONEDX)
