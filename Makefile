# make repro: run what is stale.  make test: run the whole suite.  Both make .venv first, where it is missing or outdated.
PYTHON ?= python3

# DVC runs the stages with the first `python` on PATH.
export PATH := $(CURDIR)/.venv/bin:$(PATH)

.PHONY: repro test lint schema bench

repro: .venv/ready
	.venv/bin/dvc repro

test: .venv/ready
	.venv/bin/python -m pytest

lint: .venv/ready
	.venv/bin/ruff format --check .
	.venv/bin/ruff check .

schema: .venv/ready
	.venv/bin/python -m tools.params_schema

# make bench QUICK=1: a look in under two minutes.
bench: .venv-bench/ready
	.venv-bench/bin/python -m benchmarks $(if $(QUICK),--quick)

.venv/ready: requirements.txt constraints.txt
	$(PYTHON) -m venv --clear .venv
	.venv/bin/python -m pip install -r requirements.txt -c constraints.txt
	touch $@

.venv-bench/ready: requirements.txt constraints.txt benchmarks/requirements.txt
	$(PYTHON) -m venv --clear .venv-bench
	.venv-bench/bin/python -m pip install -r requirements.txt -r benchmarks/requirements.txt -c constraints.txt
	touch $@
