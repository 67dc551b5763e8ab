# `make train` and `make test` are all that a fresh machine needs: they make the environment first.
SHELL := /bin/bash
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
ARGS ?=

.PHONY: help train test lint types benchmark results clean

help:
	@echo "make train [ARGS=\"experiment=... key=value\"]   train (default: LeNet-5 on digits)"
	@echo "make test                                       the test suite"
	@echo "make lint types                                 ruff and mypy"
	@echo "make benchmark                                  speed, as ratios"

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

clean:
	rm -rf $(VENV)

$(VENV)/bin/python:
	@command -v git >/dev/null || { echo "error: git is not installed; install it (Debian: apt install git)"; exit 1; }
	@command -v $(PYTHON) >/dev/null || { echo "error: $(PYTHON) is not installed; install Python 3.11 to 3.13, or name it: make PYTHON=python3.12 ..."; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 14))' || { echo "error: $(PYTHON) is $$($(PYTHON) -V 2>&1), and 3.11 to 3.13 is needed; name another: make PYTHON=python3.12 ..."; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || { echo "error: $(PYTHON) has no venv; install it (Debian: apt install python3-venv)"; exit 1; }
	@$(PYTHON) -m venv $(VENV)

$(VENV)/.installed: pyproject.toml | $(VENV)/bin/python
	@echo "installing PyTorch and the rest into $(VENV) (some 5 GB, a few minutes) ..."
	@$(BIN)/pip install --quiet --disable-pip-version-check -e . || { echo "error: the installation failed; see above, then run make again"; exit 1; }
	@touch $@

$(VENV)/.installed-dev: pyproject.toml | $(VENV)/bin/python
	@echo "installing PyTorch and the rest into $(VENV) (some 5 GB, a few minutes) ..."
	@$(BIN)/pip install --quiet --disable-pip-version-check -e '.[dev]' || { echo "error: the installation failed; see above, then run make again"; exit 1; }
	@touch $@ $(VENV)/.installed
