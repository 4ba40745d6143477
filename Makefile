# Needs Python 3.11, 3.12 or 3.13 with pip, and make. Each target installs what it needs into .venv.
VENV := .venv
BIN := $(VENV)/bin
# Stamps: the system itself is installed; tests, linters and documentation tools are, too.
RUNTIME := $(VENV)/.runtime
DEVELOPMENT := $(VENV)/.development

# The newest supported interpreter that runs and can make an environment; a pyenv shim without a version behind it fails.
# To choose another: make PYTHON=/path/to/python3.12 TARGET
CANDIDATES := python3.13 python3.12 python3.11 python3
SUPPORTED := import sys, ensurepip, venv; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))
PYTHON ?= $(shell for python in $(CANDIDATES); do \
	"$$python" -c '$(SUPPORTED)' >/dev/null 2>&1 && { command -v "$$python"; break; }; done)

PIP_INSTALL := $(BIN)/python -m pip install --quiet --disable-pip-version-check
UV_COMPILE := $(VENV)-lock/bin/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-annotate \
	--custom-compile-command 'make lock'
# Leaves out of gpu.lock what requirements.lock already pins.
NOT_RUNTIME = $$(sed -n 's/^\([a-z0-9.-]*\)==.*/--no-emit-package \1/p' requirements.lock)

.DEFAULT_GOAL := help
.PHONY: help quickstart test check bench docs lock clean

help: ## this list
	@grep -hE '^[a-z]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-12s %s\n", $$1, $$2}'

$(BIN)/python:
	@python="$(PYTHON)"; \
	if [ -z "$$python" ]; then \
		echo "No Python 3.11, 3.12 or 3.13 with pip runs here (tried: $(CANDIDATES)). Install one, for example:"; \
		echo "  Debian, Ubuntu: sudo apt-get install python3 python3-venv"; \
		echo "  macOS:          brew install python@3.13"; \
		echo "  pyenv:          pyenv install 3.13 && pyenv local 3.13"; \
		echo "or name one: make PYTHON=/path/to/python3.13 $(MAKECMDGOALS)"; \
		exit 1; \
	fi; \
	echo "Using $$("$$python" --version) ($$python) for $(VENV)"; \
	"$$python" -m venv $(VENV)

$(RUNTIME): requirements.lock pyproject.toml | $(BIN)/python
	@echo "Installing the runtime packages into $(VENV) (a few minutes the first time)"
	@$(PIP_INSTALL) --require-hashes -r requirements.lock
	@$(PIP_INSTALL) --no-deps -e .
	@touch $@

$(DEVELOPMENT): requirements-dev.lock pyproject.toml | $(BIN)/python
	@echo "Installing the runtime and development packages into $(VENV) (a few minutes the first time)"
	@$(PIP_INSTALL) --require-hashes -r requirements-dev.lock
	@$(PIP_INSTALL) --no-deps -e .
	@touch $(RUNTIME) $@

# The local S3 server belongs to the development packages.
quickstart: $(if $(STORAGE),$(DEVELOPMENT),$(RUNTIME)) ## render words, train on two workers, read unseen words: runs/quickstart/; STORAGE=s3 uses a bucket
	@$(BIN)/python -m jobs.quickstart $(if $(STORAGE),--storage $(STORAGE))

# Two processes, which share the groups of tests/conftest.py.
test: $(DEVELOPMENT) ## all tests: real processes, a real local Ray cluster, a real S3 server
	@$(BIN)/python -m pytest --numprocesses 2 --dist loadscope --no-loadscope-reorder

check: $(DEVELOPMENT) ## format, lint, types, spelling, workflows, documentation with its links; no tests
	@$(BIN)/ruff format --check .
	@$(BIN)/ruff check .
	@$(BIN)/mypy
	@$(BIN)/codespell
	@$(BIN)/jactionlint --shellcheck=$(BIN)/shellcheck
	@$(MAKE) --no-print-directory docs

bench: $(RUNTIME) ## images/s of the training step and of the whole system
	@$(BIN)/python -m jobs.bench

docs: $(DEVELOPMENT) ## the documentation as a site: build/site/index.html
	@$(BIN)/zensical build --strict

lock: $(BIN)/python ## update the lock files from pyproject.toml; pins that still fit stay, delete a file to raise all of its pins
	@$(BIN)/python -m venv $(VENV)-lock
	@$(VENV)-lock/bin/python -m pip install --quiet --disable-pip-version-check 'uv>=0.9'
	@$(UV_COMPILE) --extra train --extra render -o requirements.lock pyproject.toml
	@$(UV_COMPILE) --extra train --extra render --extra objectstore --extra dev -c requirements.lock \
		-o requirements-dev.lock pyproject.toml
	@$(UV_COMPILE) --extra train --extra gpu -c requirements.lock $(NOT_RUNTIME) -o cluster/deploy/gpu.lock pyproject.toml
	@rm -rf $(VENV)-lock

clean: ## remove .venv, caches, builds and runs
	rm -rf $(VENV) $(VENV)-lock runs build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
