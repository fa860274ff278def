# `make up` and `make test` set up all they need. `make help` lists the rest.
# Debian's own is built with every optimisation; others may not be, and then a message costs a tenth more CPU (docs/adr/0017).
PYTHON ?= $(shell /usr/bin/python3.11 -c "import ensurepip" 2>/dev/null && echo /usr/bin/python3.11 || echo python3.11)
VENV := .venv
BIN := $(VENV)/bin
export PATH := $(CURDIR)/$(BIN):$(PATH)
SERVICES := mesh tagset balancer edge router store tagsvc scheduler cli bench
SOURCES := $(SERVICES) sdk/python tests scripts docs/examples

.PHONY: help up test setup setup-dev servers gen gen-check gen-typescript gen-go gen-java contracts lint format types imports unit wheel bench faults errors-page clean

help:  ## what there is
	@grep -hE '^[a-z -]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 36

up: setup  ## set up and run the mesh in one process; stop it with Ctrl-C
	@exec $(BIN)/tidings up $(ARGS)

test: servers setup-dev lint types imports contracts gen-check unit wheel  ## set up and run every check and test

setup: $(VENV)/.run
setup-dev: $(VENV)/.dev

$(VENV)/.run: pyproject.toml constraints.txt scripts/setup
	scripts/setup "$(PYTHON)" "$(VENV)" .
	@rm -f $(VENV)/.dev; touch $@

$(VENV)/.dev: $(VENV)/.run
	scripts/setup "$(PYTHON)" "$(VENV)" ".[dev]"
	@touch $@

servers:  ## PostgreSQL, etcd and Redis for the tests, from Debian's packages
	@scripts/servers

lint: setup-dev  ## ruff: lint and format
	$(BIN)/ruff check $(SOURCES)
	$(BIN)/ruff format --check $(SOURCES)

format: setup-dev  ## let ruff mend what it can
	$(BIN)/ruff check --fix $(SOURCES)
	$(BIN)/ruff format $(SOURCES)

types: setup-dev  ## mypy, strict
	$(BIN)/mypy

imports: setup-dev  ## the layers
	$(BIN)/lint-imports

contracts: setup-dev  ## buf: lint, and nothing broken since the released contracts
	$(BIN)/buf lint
	$(BIN)/buf breaking --against proto/released.binpb

gen: setup-dev  ## write gen/python from proto/
	$(BIN)/python scripts/generate.py python

gen-check: setup-dev  ## gen/python is what proto/ says
	@$(BIN)/python scripts/generate.py python --output build/check
	@diff -r -x __pycache__ build/check/gen/python gen/python || { echo "gen/python is stale: run 'make gen' and commit"; exit 1; }
	@echo "gen/python is current"

gen-typescript gen-go gen-java: gen-%: setup-dev  ## contracts in another language, into gen/<language>
	$(BIN)/python scripts/generate.py $*

unit: setup-dev servers  ## every test
	$(BIN)/pytest -n 2 --dist loadfile $(ARGS)

wheel: setup-dev  ## the wheel, in an empty environment
	scripts/wheel "$(PYTHON)" "$(VENV)"

bench: setup-dev servers  ## every bench with its baselines, into build/bench (under 15 minutes)
	$(BIN)/tidings bench all $(ARGS)

faults: setup-dev servers  ## every fault at a fleet under load; writes docs/reliability.md's table (about 35 minutes)
	@scripts/servers faults
	$(BIN)/python -m tests.faults --write $(ARGS)

errors-page: setup-dev  ## write docs/errors.md from the contract
	$(BIN)/python scripts/errors_page.py

clean:  ## remove what the targets made, but not the data
	rm -rf $(VENV) build dist .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
