# Each target sets itself up (.ci/setup): git, make and some Python 3 with venv are enough.
# PYTHON=/path/to/python3.12 chooses the Python; DEMO_FLAGS and TEST_FLAGS are handed on.

VENV := .venv/bin

# Where a machine asks Python to keep no bytecode, each of the many processes below would parse all
# of jax and numpyro again, for ten seconds or more.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: help setup demo test test-fast lint clean

help:
	@echo "make demo       train on the real digits, compare, draw: runs/demo"
	@echo "make test       run the tests"
	@echo "make test-fast  those that are neither marked slow nor of an experiment"
	@echo "make lint       ruff and the type checker"
	@echo "make clean      remove what the targets above have made, except runs/"

setup:
	@.ci/setup

demo: setup
	@$(VENV)/python -m bayesfilt demo --out runs/demo --force $(DEMO_FLAGS)

test: setup
	@$(VENV)/python -m pytest -n 2 --dist loadfile $(TEST_FLAGS)

test-fast: setup
	@$(VENV)/python -m pytest -n 2 --dist loadfile -m "not slow" --ignore tests/experiments $(TEST_FLAGS)

lint: setup
	@$(VENV)/python -m ruff check .
	@$(VENV)/python -m ruff format --check .
	@$(VENV)/python -m basedpyright --pythonpath $(VENV)/python

clean:
	rm -rf .venv .uv .pytest_cache .ruff_cache .hypothesis build dist *.egg-info
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
