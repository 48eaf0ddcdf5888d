# Commands for development. PYTHON: the interpreter that creates the environment.
PYTHON ?= python3
BIN := .venv/bin

install: .venv/installed ## create the environment with the locked packages

.venv/installed: requirements/dev.txt
	$(PYTHON) -m venv .venv
	$(BIN)/pip install -q --require-hashes -r requirements/dev.txt
	$(BIN)/pip install -q --no-deps --no-build-isolation -e .
	touch $@

lint: install ## lint, format and types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

unit: install ## the unit tests, less than a minute
	$(BIN)/python -m pytest tests/unit

check: lint unit ## everything to run before a commit

test: install ## all tests
	$(BIN)/python -m pytest

lock: ## lock the requirements anew; needs uv
	$(LOCK) -o requirements.txt requirements/main.in
	$(LOCK) -c requirements.txt -o requirements/dev.txt requirements/dev.in
	$(LOCK) -c requirements.txt -o requirements/gpu.txt requirements/gpu.in

LOCK := uv pip compile -q --universal --python-version 3.10 --generate-hashes --no-emit-index-url --no-header --no-annotate

.PHONY: install lint unit check test lock
