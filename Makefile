# `make demo` and `make test` do all their set-up themselves; `make install` does the set-up alone.
# Another Python or another folder for the environment: make PYTHON=python3.13 VENV=.venv-3.13 demo
PYTHON ?=
VENV = .venv
BIN = $(VENV)/bin
# Both names, as pip 25.3 takes the versions of build tools from the second only.
PIP = PIP_CONSTRAINT=constraints.txt PIP_BUILD_CONSTRAINT=constraints.txt \
	$(BIN)/python -m pip --disable-pip-version-check

.PHONY: demo test test-all test-postgres test-slow lint docs install install-all results environment \
	constraints resolve clean

demo: $(VENV)/installed
	$(BIN)/peppp demo

test: $(VENV)/installed-dev lint
	$(BIN)/python -m pytest -n 2 -m "not slow"

test-all: $(VENV)/installed-dev lint
	$(BIN)/python -m pytest -n 2

# The tests of the store on a real PostgreSQL: Debian's, started in a temporary folder and ended with them.
test-postgres: $(VENV)/installed-all
	.ci/postgres $(BIN)/python -m pytest tests/test_store.py tests/test_queue.py tests/test_status.py \
		tests/test_campaign.py

# The slow tests alone, with every extra. The fuzzing draws the same examples each time here, so that a change is
# not blamed for a fault that it did not make; `pytest -m fuzz` draws others.
test-slow: $(VENV)/installed-all
	$(BIN)/python -m pytest -n 2 --dist loadfile -m slow --hypothesis-seed=0

lint: $(VENV)/installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

docs: $(VENV)/installed-dev
	$(PIP) install -q -e '.[docs]'
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --strict -q
	@echo site/index.html

# The paper's claims on the table that ships, or on another: make results TABLE=runs.db
TABLE ?= src/peppp/data/table.csv.gz
results: $(VENV)/installed-dev
	$(BIN)/peppp reproduce all $(TABLE) --seeds 5 --page docs/results.md

install: $(VENV)/installed

# The stamps are written last, so that a half-made environment is made again; so is one that no longer starts, or
# that is not of the PYTHON asked for.
BROKEN := $(shell sh scripts/venv --check $(VENV) '$(PYTHON)' || echo environment)
$(VENV)/installed: pyproject.toml constraints.txt $(BROKEN)
	@echo "installing into $(VENV): this downloads gigabytes where PyTorch comes with CUDA"
	$(PIP) install -q -e .
	@touch $@

environment:
	@sh scripts/venv $(VENV) '$(PYTHON)'

$(VENV)/installed-dev: $(VENV)/installed
	$(PIP) install -q -e '.[dev]'
	@touch $@

install-all: $(VENV)/installed-all

$(VENV)/installed-all: $(VENV)/installed-dev
	$(PIP) install -q -e '.[dev,postgres,ray,slurm,plot,optuna,hf,lowbit,browser,docs]'
	@touch $@

# Versions that are in constraints.txt stay as long as they fit: make constraints UPGRADE='--upgrade-package numpy'
constraints: $(BIN)/uv
	$(BIN)/uv pip compile -q $(UPGRADE) --universal --all-extras --only-binary :all: --python-version 3.11 \
		--no-annotate --constraint .ci/held.txt --output-file constraints.txt pyproject.toml \
		>/dev/null

# Whether constraints.txt holds on every platform and Python that it is for.
resolve: $(BIN)/uv
	UV=$(BIN)/uv .ci/resolve

# The extra dev has it too, but cannot be installed while constraints.txt does not hold.
$(BIN)/uv: $(BROKEN)
	$(PIP) install -q uv

clean:
	rm -rf $(VENV)
