# `make demo` and `make test` do all their set-up themselves; `make install` does the set-up alone.
PYTHON ?= python3.11
BIN := .venv/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check

.PHONY: demo test test-all lint install results clean

demo: .venv/installed
	$(BIN)/peppp demo

test: .venv/installed-dev lint
	$(BIN)/python -m pytest -n 2 -m "not slow"

test-all: .venv/installed-dev lint
	$(BIN)/python -m pytest -n 2

lint: .venv/installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

# The paper's claims on the table that ships, or on another: make results TABLE=runs.db
TABLE ?= src/peppp/data/table.csv.gz
results: .venv/installed-dev
	$(BIN)/peppp reproduce all $(TABLE) --seeds 5 --page docs/results.md

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
