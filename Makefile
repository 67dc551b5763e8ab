# `make train` and `make test` are all that a fresh machine needs: they make the environment first.
SHELL := /bin/bash
PYTHON ?= python3
TORCH ?=
LOCKED ?=
ARGS ?=

# Each choice of an interpreter, of torch and of the lock has an environment of its own.
VERSION = $(shell $(PYTHON) -c 'import sys; print("%d.%d" % sys.version_info[:2])' 2>/dev/null)
LOCK := $(if $(filter-out 0,$(LOCKED)),requirements.lock)
VENV := .venv$(if $(filter-out python3,$(PYTHON)),-python$(VERSION))$(TORCH:%=-torch-%)$(LOCK:%.lock=-locked)
BIN := $(VENV)/bin
PIP := $(BIN)/pip install --quiet --disable-pip-version-check
FAILED := { echo "error: the installation failed; see above, then run make again"; exit 1; }

.PHONY: help train test lint types benchmark results lock clean

help:
	@echo "make train [ARGS=\"experiment=... key=value\"]   train (default: LeNet-5 on digits)"
	@echo "make test                                       the test suite"
	@echo "make lint types                                 ruff and mypy"
	@echo "make benchmark                                  speed, as ratios"
	@echo "make lock [ARGS=--upgrade]                      pin all dependencies in requirements.lock"
	@echo
	@echo "PYTHON=python3.12, TORCH=2.11.0 or LOCKED=1 (what requirements.lock pins) behind a target means"
	@echo "an environment of its own, which is made first."

train: $(VENV)/.installed
	@$(BIN)/python train.py $(ARGS)

# A file's tests stay together; workers with threads of their own would only be in each other's way.
test: $(VENV)/.installed-dev
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n auto --dist loadfile

lint: $(VENV)/.installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(VENV)/.installed-dev
	$(BIN)/mypy

benchmark: $(VENV)/.installed-dev
	$(BIN)/python scripts/benchmark.py --record docs/benchmarks/cpu.json

results: $(VENV)/.installed
	$(BIN)/python scripts/results.py

# Keeps the versions that the lock has, unless it cannot; ARGS=--upgrade takes the newest.
lock:
	@command -v uv >/dev/null || { echo "error: uv is not installed; install it (pip install uv)"; exit 1; }
	@uv pip compile --quiet --universal --python-version 3.11 --fork-strategy fewest --extra dev \
		--generate-hashes --no-annotate --custom-compile-command "make lock" $(ARGS) \
		--output-file requirements.lock pyproject.toml

clean:
	rm -rf $(VENV)

$(VENV)/bin/python:
	@test -z "$(TORCH)" || test -z "$(LOCK)" || { echo "error: LOCKED=1 has the torch of requirements.lock; leave out LOCKED=$(LOCKED) or TORCH=$(TORCH)"; exit 1; }
	@command -v git >/dev/null || { echo "error: git is not installed; install it (Debian: apt install git)"; exit 1; }
	@command -v $(PYTHON) >/dev/null || { echo "error: $(PYTHON) is not installed; install Python 3.11 to 3.13, or name it: make PYTHON=python3.12 ..."; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 14))' || { echo "error: $(PYTHON) is $$($(PYTHON) -V 2>&1), and 3.11 to 3.13 is needed; name another: make PYTHON=python3.12 ..."; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || { echo "error: $(PYTHON) has no venv; install it (Debian: apt install python3-venv)"; exit 1; }
	@$(PYTHON) -m venv $(VENV)

# What is installed; the lock is one for all, with what the tests need.
$(VENV)/.installed: WHAT = -e .
$(VENV)/.installed-dev: WHAT = -e '.[dev]'

$(VENV)/.installed $(VENV)/.installed-dev: pyproject.toml $(LOCK) | $(VENV)/bin/python
	@echo "installing PyTorch and the rest into $(VENV) (some 5 GB, a few minutes) ..."
ifdef LOCK
	@$(PIP) --require-hashes -r $(LOCK) && $(PIP) --no-deps --no-build-isolation -e . || $(FAILED)
else
	@$(PIP) $(WHAT) $(TORCH:%='torch==%') || $(FAILED)
endif
	@touch $@ $(VENV)/.installed
