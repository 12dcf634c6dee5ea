# `make demo` and `make test` do all their set-up themselves; `make install` does the set-up alone.
PYTHON ?= python3.11
BIN := .venv/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check

.PHONY: demo test test-all test-postgres test-everything lint install clean

demo: .venv/installed
	$(BIN)/peppp demo

test: .venv/installed-dev lint
	$(BIN)/python -m pytest -n 2 -m "not slow"

test-all: .venv/installed-dev lint
	$(BIN)/python -m pytest -n 2

# The tests of the store on a real PostgreSQL: Debian's, started in a temporary folder and ended with them.
test-postgres: .venv/installed-dev
	$(PIP) install -q -c constraints.txt -e '.[dev,postgres]'
	.ci/postgres $(BIN)/python -m pytest tests/test_store.py tests/test_queue.py tests/test_status.py \
		tests/test_campaign.py

# Everything with every extra and service, as .ci/run does.
test-everything: .venv/installed-dev lint
	$(PIP) install -q -c constraints.txt -e '.[dev,postgres,ray,slurm]'
	.ci/postgres $(BIN)/python -m pytest -n 2 --dist loadfile

lint: .venv/installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

install: .venv/installed

# The stamps are written last, so that a half-made environment is made again.
.venv/installed: pyproject.toml constraints.txt
	@test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(PIP) install -q -c constraints.txt -e .
	@touch $@

.venv/installed-dev: .venv/installed
	$(PIP) install -q -c constraints.txt -e '.[dev]'
	@touch $@

clean:
	rm -rf .venv
