# make repro: run what is stale.  make test: run the whole suite.  Both make .venv first, where it is missing or outdated.
PYTHON ?= python3

# DVC runs the stages with the first `python` on PATH.
export PATH := $(CURDIR)/.venv/bin:$(PATH)

.PHONY: repro test lint schema

repro: .venv/ready
	.venv/bin/dvc repro

test: .venv/ready
	.venv/bin/python -m pytest

lint: .venv/ready
	.venv/bin/ruff format --check .
	.venv/bin/ruff check .

schema: .venv/ready
	.venv/bin/python -m tools.params_schema

.venv/ready: requirements.txt constraints.txt
	$(PYTHON) -m venv --clear .venv
	.venv/bin/python -m pip install -r requirements.txt -c constraints.txt
	touch $@
