# `make demo` and `make test` do all their set-up themselves; `make install` does the set-up alone.
PYTHON ?= python3.11
BIN := .venv/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check

.PHONY: demo test test-all test-postgres test-slow lint docs install install-all results clean

demo: .venv/installed
	$(BIN)/peppp demo

test: .venv/installed-dev lint
	$(BIN)/python -m pytest -n 2 -m "not slow"

test-all: .venv/installed-dev lint
	$(BIN)/python -m pytest -n 2

# The tests of the store on a real PostgreSQL: Debian's, started in a temporary folder and ended with them.
test-postgres: .venv/installed-all
	.ci/postgres $(BIN)/python -m pytest tests/test_store.py tests/test_queue.py tests/test_status.py \
		tests/test_campaign.py

# The slow tests alone, with every extra.
test-slow: .venv/installed-all
	$(BIN)/python -m pytest -n 2 --dist loadfile -m slow

lint: .venv/installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

docs: .venv/installed-dev
	$(PIP) install -q -c constraints.txt -e '.[docs]'
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --strict -q
	@echo site/index.html

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

install-all: .venv/installed-all

.venv/installed-all: .venv/installed-dev
	$(PIP) install -q -c constraints.txt -e '.[dev,postgres,ray,slurm,plot,optuna,hf,train,browser,docs]'
	@touch $@

clean:
	rm -rf .venv
