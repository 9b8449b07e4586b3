# One-word entry points; each builds what it needs. deploy/setup.sh explains the variables of `setup`.
RECIPE ?= alfworld
ARGS ?=
BIN := .venv/bin/python -m
ROOMS := actors controller envs learner

export PYTHON VLLM TORCH TORCH_INDEX EXTRAS

.DEFAULT_GOAL := help
.PHONY: help setup train test lint check chaos clean monitoring-up monitoring-down monitoring-status \
  cluster-up cluster-status cluster-check cluster-scale cluster-submit cluster-down

help:  ## this list
	@awk -F ':.*## ' '/^[a-z -]+:.*## / {sub(/ /, "|", $$1); printf "  make %-35s %s\n", $$1, $$2}' $(MAKEFILE_LIST)
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

monitoring-up: setup  ## watch a run with what is installed of Prometheus and Grafana: make monitoring-up RUN=runs/NAME
	@$(BIN) controller.cli monitoring up $(RUN) $(ARGS)

monitoring-down monitoring-status: setup  ## end what monitoring-up started; or say what runs: RUN=runs/NAME
	@$(BIN) controller.cli monitoring $(@:monitoring-%=%) $(RUN) $(ARGS)

CLUSTER = $(BIN) controller.cli cluster $(@:cluster-%=%) $(if $(PROVIDER),--provider $(PROVIDER))
SIZES = $(if $(ENVS),envs=$(ENVS)) $(if $(INFERENCE),inference=$(INFERENCE)) $(if $(LEARNERS),learners=$(LEARNERS))

cluster-up: setup  ## a cluster for runs, here: make cluster-up ENVS=2 INFERENCE=2 LEARNERS=1 [PROVIDER=local|kuberay|ray|slurm]
	@$(CLUSTER) $(SIZES) $(ARGS)

cluster-scale cluster-check: setup  ## more or fewer of each, also while a run trains; or what would be in the way
	@$(CLUSTER) $(SIZES) $(ARGS)

cluster-submit: setup  ## train in the cluster: make cluster-submit RECIPE=alfworld ARGS="seed=1"
	@$(CLUSTER) $(RECIPE) $(ARGS)

cluster-status cluster-down: setup  ## nodes, actors, the run, what is dead and why; or end all of it
	@$(CLUSTER) $(ARGS)

chaos: setup  ## random faults against real runs, judged from their logs: make chaos FOLDER=/tmp/chaos ARGS="--runs 20"
	@$(BIN) bench.chaos --folder $(or $(FOLDER),runs/chaos) $(ARGS)

clean:  ## remove caches and builds (.venv and runs stay)
	@rm -rf build *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache
	@find $(ROOMS) tests bench -name __pycache__ -type d -prune -exec rm -rf {} +
