# Two commands do everything: `make demo` runs the main job, `make test` passes the tests. Both install first.
PYTHON ?= python3
VENV ?= .venv
WORKERS ?= 2
BIN := $(VENV)/bin

.DEFAULT_GOAL := help
.PHONY: help demo test lint docs figure clean

help:
	@echo "make demo    install, then tune, evaluate and report on the embedded model and data"
	@echo "make test    install, then run the tests"
	@echo "make lint    install, then ruff and mypy"
	@echo "make docs    install, then build the documentation into site/; a warning fails it"
	@echo "make figure  redraw docs/kappa.png from the demo's runs (needs Chromium)"
	@echo "PYTHON=python3.12 chooses the interpreter (3.11 or newer), VENV=path the environment,"
	@echo "WORKERS=4 how many tests run at once"

demo: $(VENV)/.demo
	$(BIN)/equipoise demo

test: $(VENV)/.dev
	HF_HUB_OFFLINE=1 $(BIN)/python -m pytest -n $(WORKERS) --dist loadfile

lint: $(VENV)/.dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

docs: $(VENV)/.dev
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

figure: $(VENV)/.demo
	$(BIN)/python scripts/figures.py kappa runs/demo docs/kappa.png

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "$(PYTHON) is older than 3.11; run make PYTHON=python3.11 (or newer)"; exit 1; }
	$(PYTHON) -m venv $(VENV)

$(VENV)/.demo: $(BIN)/python pyproject.toml constraints.txt
	$(BIN)/python -m pip install -c constraints.txt -e '.[demo]'
	@touch $@

$(VENV)/.dev: $(BIN)/python pyproject.toml constraints.txt
	$(BIN)/python -m pip install -c constraints.txt -e '.[dev]'
	@touch $@ $(VENV)/.demo

clean:
	rm -rf $(VENV) runs site .pytest_cache .ruff_cache .mypy_cache
