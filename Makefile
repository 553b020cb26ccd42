# make train: the post's network on MNIST, from nothing but Python 3.11 or later.   make test: the tests.

PYTHON ?= python3
BIN := .venv/bin
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check
NEAR := ../shared/mnist

.PHONY: train test test-peers lint reproduce records bench clean

train: .venv/app
	@if [ -d $(NEAR) ]; then $(BIN)/handgrad data fetch --from $(NEAR); fi
	$(BIN)/handgrad train --recipe post

test: .venv/dev
	@if [ -d $(NEAR) ]; then $(BIN)/handgrad data fetch --from $(NEAR); fi
	$(BIN)/python -m pytest -m "not peers"

test-peers: .venv/peers
	$(BIN)/python -m pytest -m peers

lint: .venv/dev
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy

# The tables of Nielsen's book for this network, over five seeds each: about ten minutes.
reproduce: .venv/app
	$(BIN)/python reproductions/nielsen.py

# The recipes on the test set: ten minutes for the short ones, an hour for the long. Then what a choice in them is worth,
# on held-out digits: a quarter of an hour; and the 8x8 digits beside scikit-learn. Leave the machine alone meanwhile.
records: .venv/peers
	@if [ -d $(NEAR) ]; then $(BIN)/handgrad data fetch --from $(NEAR); fi
	$(BIN)/python -m records.run second quick minute-20s minute
	$(BIN)/python -m records.run small pure --workers 2
	$(BIN)/python -m records.run best committee --seeds 2 --workers 2
	$(BIN)/python -m records.choices
	$(BIN)/python -m records.digits8

# Every peer side by side: eleven minutes for the steps, eleven for the rest. Leave the machine alone meanwhile.
bench: .venv/peers
	@if [ -d $(NEAR) ]; then $(BIN)/handgrad data fetch --from $(NEAR); fi
	$(BIN)/python -m benchmarks.steps
	$(BIN)/python -m benchmarks.resources
	$(BIN)/python -m benchmarks.growth
	OPENBLAS_NUM_THREADS=1 $(BIN)/python -m benchmarks.ladder
	OPENBLAS_NUM_THREADS=1 $(BIN)/python -m benchmarks.roads
	$(BIN)/python -m benchmarks.pictures
	$(BIN)/python -m benchmarks.estimators

.venv/bin/python:
	$(PYTHON) -c 'import sys; sys.exit(None if sys.version_info >= (3, 11) else "handgrad needs Python 3.11 or later")'
	$(PYTHON) -m venv .venv

# What is installed is remembered in empty files, so that a second make has nothing to do.
.venv/app: pyproject.toml | .venv/bin/python
	$(PIP) --editable '.[app]'
	@touch $@

.venv/dev: pyproject.toml | .venv/bin/python
	$(PIP) --editable '.[dev]'
	@touch $@ .venv/app

.venv/peers: .venv/dev
	$(PIP) --editable '.[dev,peers]'
	@touch $@

clean:
	rm -rf .venv build dist .pytest_cache .mypy_cache .ruff_cache .hypothesis
