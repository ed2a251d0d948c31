# make repro: run what is stale.  make test: run the whole suite.  make quick: run the tests that start no process of
# the project and do not train or draw again and again.  make lint: check formatting, code and types.  make check: the
# pipeline is current, lint, test.  make report: write report.html, a page with all results.  make compare: say whether
# the test errors changed by more than chance.  make example: train on an example table in a separate clone of what is
# committed, .example/; with TABLE=penguins, on that one.  All create .venv first if it is missing or outdated.
PYTHON ?= python3

# DVC runs the stages with the first `python` on PATH.
export PATH := $(CURDIR)/.venv/bin:$(PATH)

REQUIREMENTS := $(wildcard requirements.txt constraints.txt stages/requirements*.txt */*/requirements.txt)

.PHONY: repro test quick lint current check schema report compare example bench

repro: .venv/ready
	.venv/bin/dvc repro

test: .venv/ready
	.venv/bin/python -m pytest

quick: .venv/ready
	.venv/bin/python -m pytest -m "not slow"

lint: .venv/ready
	.venv/bin/ruff format --check .
	.venv/bin/ruff check .
	.venv/bin/mypy
	@if command -v actionlint; then actionlint; fi

STALE = The pipeline is stale: run `make repro`, then commit dvc.lock, data/metrics.json and data/errors.csv.

current: .venv/ready
	@.venv/bin/dvc status -q || { .venv/bin/dvc status; echo '$(STALE)' >&2; exit 1; }

check: current
	$(MAKE) lint
	$(MAKE) test

schema: .venv/ready
	.venv/bin/python -m tools.params_schema

# make compare REV=HEAD~1: with another commit, branch or experiment; without REV, with HEAD.
compare: .venv/ready
	.venv/bin/python -m tools.compare $(REV)

# make report REV=HEAD~1: beside another commit, branch or experiment.
report: .venv/ready
	.venv/bin/python -m tools.report $(REV)

TABLE ?= auto-mpg

# The clone has the last commit. It shares DVC's cache, so the second time nothing is computed.
example: .venv/ready
	rm -rf .example
	git clone --quiet . .example
	cp examples/$(TABLE)/params.yaml .example/
	cd .example && dvc cache dir --local ../.dvc/cache && dvc repro && cat data/metrics.json

# make bench QUICK=1: a quick look, in two or three minutes.
bench: .venv-bench/ready
	.venv-bench/bin/python -m benchmarks $(if $(QUICK),--quick)

# An environment is never emptied, least of all one behind a link, which others use.
%/ready: $(REQUIREMENTS)
	@if [ -L $* ]; then echo '$*: is a link to another environment: remove the link, then run make again' >&2; exit 1; fi
	$(PYTHON) -m venv $*
	$*/bin/python -m pip install -r requirements.txt $(EXTRA) -c constraints.txt
	touch $@

.venv-bench/ready: EXTRA = -r benchmarks/requirements.txt
.venv-bench/ready: benchmarks/requirements.txt
