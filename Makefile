# Two commands do everything: `make demo` runs the main job, `make test` passes the tests. Both install first.
PYTHON ?= python3
VENV ?= .venv
WORKERS ?= 2
BIN := $(VENV)/bin
# The tools that make locks, ask for weaknesses and build releases; away from what they look at.
SUPPLY ?= .venv-supply
TOOLS := $(SUPPLY)/bin
RUNTIME := --extra demo --extra convert --extra html --extra ray
LOCK := $(TOOLS)/uv pip compile -q --generate-hashes --universal --python-version 3.11.5 --custom-compile-command 'make lock'

.DEFAULT_GOAL := help
.PHONY: help demo test lint docs figure clean locked lock audit release

help:
	@echo "make demo    install, then tune, evaluate and report on the embedded model and data"
	@echo "make test    install, then run the tests"
	@echo "make lint    install, then ruff and mypy"
	@echo "make docs    install, then build the documentation into site/; a warning fails it"
	@echo "make figure  redraw docs/kappa.png from the demo's runs (needs Chromium)"
	@echo "make locked  install the development environment by hashes (requirements/dev.lock; torch by its version)"
	@echo "make lock    make the files in requirements/ anew, after a change to pyproject.toml or constraints.txt"
	@echo "make audit   ask for known weaknesses of the pinned packages"
	@echo "make release build dist/: wheel, source, SBOM, their hashes; twice, and the same bytes"
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

# What is installed is what was looked at: nothing is resolved, and no file has another hash. Packages that come as
# source alone are built by the setuptools that is locked. Torch comes as another build on each kind of machine.
locked: $(BIN)/python
	$(BIN)/python -m pip install --require-hashes --no-deps -r requirements/build.lock
	$(BIN)/python -m pip install --require-hashes --no-deps --no-build-isolation -r requirements/dev.lock
	$(BIN)/python -m pip install -c constraints.txt torch
	$(BIN)/python -m pip install --no-deps --no-build-isolation -e .
	@touch $(VENV)/.dev $(VENV)/.demo

lock: $(SUPPLY)/.ready
	echo setuptools | $(LOCK) - --no-config -c constraints.txt -o requirements/build.lock
	$(LOCK) pyproject.toml --extra dev -c constraints.txt --no-emit-package torch --no-emit-package pip -o requirements/dev.lock
	$(LOCK) pyproject.toml $(RUNTIME) -c constraints.txt --no-emit-package pip -o requirements/runtime.lock
	echo torch | $(LOCK) - --no-config -c constraints.txt -o requirements/torch.lock
	$(LOCK) --group pyproject.toml:supply -o requirements/supply.lock

audit: $(SUPPLY)/.ready
	$(TOOLS)/python scripts/audit.py

release: $(SUPPLY)/.ready
	$(TOOLS)/python scripts/release.py dist

$(SUPPLY)/.ready: requirements/supply.lock
	$(PYTHON) -m venv $(SUPPLY)
	$(TOOLS)/python -m pip install --require-hashes --no-deps -r requirements/supply.lock
	@touch $@

clean:
	rm -rf $(VENV) $(SUPPLY) runs site .pytest_cache .ruff_cache .mypy_cache
