# One-word entry points; each builds what it needs. deploy/setup.sh explains the variables of `setup`.
RECIPE ?= alfworld
ARGS ?=
BIN := .venv/bin/python -m
ROOMS := actors controller envs learner

export PYTHON VLLM TORCH TORCH_INDEX EXTRAS

.DEFAULT_GOAL := help
.PHONY: help setup train test lint check clean

help:  ## this list
	@awk -F ':.*## ' '/^[a-z]+:.*## / {printf "  make %-7s %s\n", $$1, $$2}' $(MAKEFILE_LIST)
	@echo '  variables: RECIPE=alfworld ARGS="seed=1 steps=20" VLLM=cpu|cuda TORCH_INDEX=URL EXTRAS=textworld|dense PYTHON=python3.11'

setup:  ## build .venv (cached; runs by itself before the others)
	@deploy/setup.sh

train: setup  ## train an agent: make train RECIPE=alfworld ARGS="seed=1"
	@$(BIN) controller.cli train $(RECIPE) $(ARGS)

# Two test processes: most of the time is spent on programs that start up on one core. A file stays in one process.
test: lint  ## lint, types, contracts, unit and integration tests
	@$(BIN) pytest -n 2 --dist loadfile

check: lint  ## what to run before a commit: lint, types, contracts, unit tests
	@$(BIN) pytest tests/unit -m "not gpu and not slow and not exhaustive"

lint: setup  ## ruff, mypy, import contracts
	@$(BIN) ruff check --quiet --output-format concise .
	@$(BIN) ruff format --check --quiet . || { $(BIN) ruff format --check . ; echo "format them: .venv/bin/ruff format ."; exit 1; }
	@echo "ruff: clean"
	@$(BIN) mypy
	@PYTHONPATH=. .venv/bin/lint-imports --no-logo > .venv/lint-imports.log 2>&1 || { cat .venv/lint-imports.log; exit 1; }
	@echo "import contracts: kept"

clean:  ## remove caches and builds (.venv and runs stay)
	@rm -rf build *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache
	@find $(ROOMS) tests bench -name __pycache__ -type d -prune -exec rm -rf {} +
