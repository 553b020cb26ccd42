# make train: the post's network on MNIST, from nothing but Python 3.11 or later.   make test: the tests.

PYTHON ?= python3
BIN := .venv/bin
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check
NEAR := ../shared/mnist

.PHONY: train test test-peers lint docs readme reproduce reproduce-long records bench clean

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

# The pages, every one of them run: docs/_build/html/index.html. A few minutes the first time.
docs: .venv/docs
	@if [ -d $(NEAR) ]; then $(BIN)/handgrad data fetch --from $(NEAR); fi
	OPENBLAS_NUM_THREADS=1 KERAS_BACKEND=torch $(BIN)/python -m sphinx -W --keep-going -b html docs docs/_build/html

# What the README shows, put there from what made it: the race, the records, the map, and a training of ten seconds.
readme: .venv/app
	@if [ -d $(NEAR) ]; then $(BIN)/handgrad data fetch --from $(NEAR); fi
	$(BIN)/python -m benchmarks.readme

# Published tables and figures, over seeds, on one core: the short ones an hour, the long ones two hours more. Each
# command goes on where it was stopped; on two cores `make reproduce WORKERS=2` takes half the time.
WORKERS ?= 1
SHORT := neurons gradients he nielsen plain
LONG := simard srivastava glorot

reproduce: .venv/app
	@if [ -d $(NEAR) ]; then $(BIN)/handgrad data fetch --from $(NEAR); fi
	for name in $(SHORT); do $(BIN)/python -m reproductions.$$name --workers $(WORKERS) || exit 1; done
	$(BIN)/python -m reproductions.page

reproduce-long: .venv/app
	@if [ -d $(NEAR) ]; then $(BIN)/handgrad data fetch --from $(NEAR); fi
	for name in $(LONG); do $(BIN)/python -m reproductions.$$name --workers $(WORKERS) || exit 1; done
	$(BIN)/python -m reproductions.page

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

.venv/docs: .venv/app
	$(PIP) --editable '.[docs]'
	@touch $@

.venv/peers: .venv/dev
	$(PIP) --editable '.[dev,peers]'
	@touch $@

clean:
	rm -rf .venv build dist docs/_build .pytest_cache .mypy_cache .ruff_cache .hypothesis
