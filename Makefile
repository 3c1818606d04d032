PYTHON ?= python3
MINUTES ?= 15
N ?= 300
RATE ?= 3000
SEED ?= 1
DEMO_DAYS ?=
DEMO_ARGS ?=
TEST_ARGS ?=
SERVICE ?=
NAME ?=
BENCH_ARGS ?=
UP_ARGS ?=
MUTANTS ?=

VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/ready

# Everything here starts many processes: compiled once, each starts a second or two sooner.
export PYTHONDONTWRITEBYTECODE :=

.DEFAULT_GOAL := help
.PHONY: help demo test mutants check lint types contracts migration up down reset bench chaos soak requirements

help: ## Show this help
	@echo "Evenkeel: make TARGET (needs Python 3.11 or newer and nothing else; PYTHON=$(PYTHON))"
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  %-14s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

demo: $(READY) ## A year of real flights through the whole loop (DEMO_DAYS=60 for less, DEMO_ARGS=--keep ...)
	@$(BIN)/evenkeel demo $(if $(DEMO_DAYS),--days $(DEMO_DAYS)) $(DEMO_ARGS)

test: $(READY) ## Run the tests (TEST_ARGS='tests/unit -k name' for some)
	@$(BIN)/python -m pytest $(TEST_ARGS)

mutants: $(READY) ## Plant known bugs, one by one: the test that is about each must turn red (MUTANTS='3 7' for some)
	@$(BIN)/python -m tests.mutants $(MUTANTS)

check: lint types contracts test ## What CI runs: lint, types, contracts, tests

lint: $(READY) ## Lint and formatting
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .

types: $(READY) ## Static types
	@$(BIN)/mypy

contracts: $(READY) ## Write schemas, AsyncAPI and OpenAPI documents from contracts/; refuses a breaking edit
	@$(BIN)/python -m evenkeel.contracts.export

migration: $(READY) ## Write the next migration of a service's tables (SERVICE=registry NAME=add_seconds_of_receipts)
	@$(BIN)/python -m evenkeel.libs.store.schema evenkeel.services.$(SERVICE).store $(NAME)
	@$(BIN)/ruff format --quiet services/$(SERVICE)/migrations

up: $(READY) ## Start the broker and the seven services; Ctrl-C stops them (UP_ARGS=--detach ...)
	@$(BIN)/evenkeel up $(UP_ARGS)

down: $(READY) ## Stop them; everything in the data folder stays
	@$(BIN)/evenkeel down

reset: $(READY) ## Delete the data folder: topics, databases, models, keys. The downloads stay
	@$(BIN)/evenkeel reset

chaos: $(READY) ## N faults at random, under load, from SEED; the table goes to docs/reliability.md
	@$(BIN)/python -m tests.chaos --cycles $(N) --seed $(SEED) --table docs/reliability.md

soak: $(READY) ## RATE records a second for MINUTES with a kill every 30 s: what grows is reported
	@$(BIN)/python -m tests.chaos.soak --minutes $(MINUTES) --rate $(RATE) --seed $(SEED)

bench: $(READY) ## Measure beside what others offer; writes docs/benchmarks.md (BENCH_ARGS='--only serving --rounds 5')
	@$(BIN)/python -m tests.bench $(BENCH_ARGS)

requirements: $(READY) ## Pin the dependencies of pyproject.toml again, with hashes
	$(BIN)/uv pip compile pyproject.toml --extra dev --universal --generate-hashes --python-version 3.11 \
		--no-header --no-annotate -o requirements.txt

$(READY): requirements.txt pyproject.toml
	@$(PYTHON) -c 'import sys; sys.version_info >= (3, 11) or sys.exit("Python 3.11 or newer is needed, this is %s: make PYTHON=python3.12 ..." % sys.version.split()[0])'
	@echo "Setting up $(VENV), once"
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@awk '/^uv==/ {found=1} found {print} found && !/\\$$/ {exit}' requirements.txt > $(VENV)/installer.txt
	@$(BIN)/python -m pip install --disable-pip-version-check --quiet --require-hashes -r $(VENV)/installer.txt
	@$(BIN)/uv pip install --python $(BIN)/python --compile-bytecode --require-hashes -r requirements.txt \
		|| $(BIN)/python -m pip install --disable-pip-version-check --require-hashes -r requirements.txt
	@$(BIN)/uv pip install --python $(BIN)/python --quiet --no-deps --no-build-isolation -e .
	@test -n "$(BROKER)" || $(BIN)/python -m evenkeel.apps.broker --prepare
	@touch $@
