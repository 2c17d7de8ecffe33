# `make run` after a clone needs python3 (3.11 or later) and nothing else. `make help` lists the rest.

SHELL := /bin/sh
.DELETE_ON_ERROR:
.DEFAULT_GOAL := help

BIN := .venv/bin
GENERATED := protos/gen/python
PROTOS := $(wildcard protos/recorder/v1/*.proto)
BUF ?= .cache/buf/node_modules/.bin/buf
DOCKER ?= docker
IMAGE ?= traffic-recorder
VERSION ?= $(shell sed -n 's/^version = "\(.*\)"/\1/p' pyproject.toml)
WORKERS ?= 2

.PHONY: help
help: ## List the targets
	@awk -F ':.*## ' '/^[a-z\/]+:.*## / {printf "  %-14s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

# What is installed -----------------------------------------------------------------------------

# One recipe for the environment: it is made when it is missing or broken, and filled again when the
# lock file has changed.
.venv/.installed: requirements.lock
	@python=$$($(PICK_PYTHON)) || { echo "$$python" >&2; exit 1; }; \
	if ! $(BIN)/python -c '' 2>/dev/null; then \
	    echo "Making .venv with $$python"; \
	    "$$python" -m venv --clear .venv || { \
	        echo "Could not make .venv. On Debian and Ubuntu: apt install python3-venv" >&2; exit 1; }; \
	fi
	@echo "Installing what requirements.lock names into .venv"; \
	{ $(BIN)/python -m pip install --disable-pip-version-check --no-input \
	    --require-hashes --only-binary :all: -r requirements.lock 2>&1; \
	  echo $$? >.venv/install.status; } | tee .venv/install.log | \
	    awk -v live="$$([ -t 1 ] && echo 1)" '/^(Collecting|Processing|Requirement already)/ \
	        {n++; if (live) {printf "\r  %d packages", n; fflush()}} \
	        END {printf "\r  %d packages\n", n}'; \
	read -r status <.venv/install.status; \
	[ "$$status" = 0 ] || { cat .venv/install.log >&2; exit "$$status"; }
	@touch $@

.venv/.project: pyproject.toml .venv/.installed
	@$(BIN)/python -m pip install --disable-pip-version-check --no-input --quiet \
	    --no-deps --no-build-isolation -e .
	@touch $@

# The first python on the PATH that is new enough; `PYTHON=/path/to/python3 make run` names one.
define PICK_PYTHON
for python in $(PYTHON) python3 python3.14 python3.13 python3.12 python3.11; do \
    if "$$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then \
        command -v "$$python"; exit 0; \
    fi; \
done; \
echo "Python 3.11 or later is needed, and there is none on the PATH: python3 is $$(python3 --version 2>&1 || echo missing). Name one with: make PYTHON=/path/to/python3 run"; \
exit 1
endef

# What runs -------------------------------------------------------------------------------------

.PHONY: run
run: .venv/.project ## Record HTTP and DNS traffic of this machine and show it; ONCE=1 ends then
	@$(BIN)/recorder up --demo $(if $(ONCE),--once)

# The capture is made by a script beside the project: real servers and clients in two namespaces.
BENCH_CAPTURE ?= .cache/bench/traffic.pcap
RECORD_TRAFFIC ?= ../shared/bench/record_traffic.sh
export BENCH_CAPTURE

$(BENCH_CAPTURE): | .venv/.project
	@mkdir -p $(@D)
	@pages=$$(mktemp -d) && chmod 755 "$$pages" && trap 'rm -rf "$$pages"' EXIT && \
	    DUR=$${DUR:-2} G=$$pages PY=$(abspath $(BIN)/python) bash $(RECORD_TRAFFIC) $@

.PHONY: bench/capture
bench/capture: $(BENCH_CAPTURE) ## Record the traffic to measure with, as root

# The soak takes half an hour.
BENCHES := $(filter-out bench/soak.py,$(sort $(wildcard bench/*.py)))

.PHONY: bench
bench: .venv/.project ## Measure; ONLY=name runs one of bench/*.py
	@set -e; for each in $(if $(ONLY),bench/$(ONLY).py,$(BENCHES)); do \
	    echo "== $$each"; $(BIN)/python "$$each"; \
	done

# What is checked -------------------------------------------------------------------------------

# Tests that need root or an engine use things that a machine has once, so they take turns.
ALONE := root or docker

# All kernels, for minutes on a new machine; else each worker would do so, and tests run out of time.
COMPILES := tests/unit/capture/test_warmup.py

.PHONY: test
test: .venv/.project ## Run all tests
	$(BIN)/python -m pytest -n 0 $(PYTEST_FLAGS) $(COMPILES)
	$(BIN)/python -m pytest -n $(WORKERS) -m "not ($(ALONE))" $(PYTEST_FLAGS)
	$(BIN)/python -m pytest -m "$(ALONE)" $(PYTEST_FLAGS) || [ $$? -eq 5 ]  # 5: there is none

.PHONY: test/unit
test/unit: .venv/.project ## Run the tests that need no other process
	$(BIN)/python -m pytest -n $(WORKERS) $(PYTEST_FLAGS) tests/unit

# By hand; `make test` takes 60 and 40 rounds.
ROUNDS ?= 500

.PHONY: test/crash
test/crash: .venv/.project ## Kill processes, and cut the power of a disk, ROUNDS=500 times each
	RECORDER_CRASH_ROUNDS=$(ROUNDS) RECORDER_POWER_ROUNDS=$(ROUNDS) \
	    $(BIN)/python -m pytest -n $(WORKERS) $(PYTEST_FLAGS) tests/crash

PACKETS ?= 1000000
FUZZ_FLAGS = --packets $(PACKETS) $(if $(SEED),--seed $(SEED)) $(if $(EPISODE),--episode $(EPISODE)) \
    $(if $(SECONDS),--seconds $(SECONDS)) $(if $(CASE),--case $(CASE)) \
    $(if $(DISSECTOR),--dissector $(DISSECTOR)) $(if $(CASES),--cases $(CASES)) \
    $(if $(BATCH),--batch $(BATCH))

.PHONY: test/fuzz
test/fuzz: .venv/.project ## Give damaged packets to the capture, PACKETS=n, or streams to DISSECTOR=name or all, CASES=n; SEED=n SECONDS=n CASE=folder
	$(BIN)/python -m tests.fuzz $(FUZZ_FLAGS)

.PHONY: lint
lint: .venv/.project ## Check style and layout
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

.PHONY: format
format: .venv/.project ## Put style and layout right
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

.PHONY: types
types: .venv/.project ## Check types
	$(BIN)/mypy

.PHONY: imports
imports: .venv/.project ## Check who imports whom
	$(BIN)/lint-imports

# What is generated -----------------------------------------------------------------------------

define GENERATE
$(BIN)/python -m grpc_tools.protoc -I protos \
    --plugin=protoc-gen-mypy=$(BIN)/protoc-gen-mypy \
    --plugin=protoc-gen-mypy_grpc=$(BIN)/protoc-gen-mypy_grpc \
    --python_out=$(1) --grpc_python_out=$(1) --mypy_out=quiet:$(1) --mypy_grpc_out=quiet:$(1) \
    --include_source_info --descriptor_set_out=$(1)/recorder/v1/comments.binpb $(PROTOS)
endef

.PHONY: protos
protos: .venv/.project ## Generate the code of the protos
	$(call GENERATE,$(GENERATED))

.PHONY: protos/check
protos/check: .venv/.project ## Check that the generated code is up to date
	@fresh=$$(mktemp -d) && trap 'rm -rf "$$fresh"' EXIT && $(call GENERATE,$$fresh) && \
	diff -r -x __pycache__ "$$fresh" $(GENERATED) || \
	    { echo "$(GENERATED) is not what the protos say: run make protos" >&2; exit 1; }

.PHONY: protos/lint
protos/lint: ## Check the protos with buf
	$(BUF) lint protos

.PHONY: docs
docs: .venv/.project ## Write docs/kfl.md from the language's own tables
	$(BIN)/python -m kfl.reference > docs/kfl.md.new && mv docs/kfl.md.new docs/kfl.md

.PHONY: lock
lock: .venv/.project ## Renew the lock file from pyproject.toml; UPGRADE=1 takes newer versions
	$(BIN)/uv pip compile --quiet --universal --generate-hashes --no-annotate --no-header \
	    --python-version 3.11 --all-extras --group dev --only-binary :all: \
	    $(if $(UPGRADE),--upgrade) pyproject.toml -o requirements.lock

.PHONY: lock/images
lock/images: .venv/.project ## Renew the lock files of the images; run it after `make lock`
	@set -e; compile="$(BIN)/uv pip compile --quiet --universal --generate-hashes --no-annotate \
	    --no-header --python-version 3.11 --only-binary :all: -c requirements.lock"; \
	for service in capture scheduler query gateway; do \
	    $$compile --extra $$service pyproject.toml -o deploy/docker/$$service.lock; \
	done; \
	sed -n 's/^requires = \["\(.*\)"\]/\1/p' pyproject.toml | \
	    $$compile - -o deploy/docker/build.lock

.PHONY: images
images: ## Build the container images
	@set -e; for target in capture scheduler query gateway; do \
	    $(DOCKER) build -f deploy/docker/Dockerfile --target $$target \
	        -t $(IMAGE)-$$target:$(VERSION) .; \
	done

.PHONY: clean
clean: ## Remove what was made: environment and caches; recordings in .data stay
	rm -rf .venv .cache .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache dist
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
