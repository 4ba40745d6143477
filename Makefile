# Python 3.11, pip and make are all that is needed; both main targets make .venv by themselves.
PYTHON ?= python3.11
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed

.DEFAULT_GOAL := help
.PHONY: help quickstart test check bench docs lock clean

help: ## this list
	@grep -hE '^[a-z]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-12s %s\n", $$1, $$2}'

$(STAMP): requirements.lock pyproject.toml
	@echo "installing into $(VENV) (a few minutes the first time)"
	@$(PYTHON) -m venv $(VENV)
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements.lock
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps -e .
	@touch $@

quickstart: $(STAMP) ## render words, train on two workers, read words never seen: runs/quickstart/; STORAGE=s3 for a bucket
	@$(BIN)/python -m jobs.quickstart $(if $(STORAGE),--storage $(STORAGE))

test: $(STAMP) ## all tests: real processes, a real local Ray cluster, a real S3 server
	@$(BIN)/python -m pytest

check: $(STAMP) ## format, lint, types, unit tests
	@$(BIN)/ruff format --check .
	@$(BIN)/ruff check .
	@$(BIN)/mypy
	@$(BIN)/python -m pytest tests/unit tests/test_architecture.py tests/test_docs.py

bench: $(STAMP) ## images/s of the step and of the whole system
	@$(BIN)/python -m jobs.bench

docs: $(STAMP) ## the documentation as a site: build/site
	@$(BIN)/zensical build --strict
	@echo build/site/index.html

lock: ## write requirements.lock anew from pyproject.toml
	@$(PYTHON) -m venv $(VENV)-lock
	@$(VENV)-lock/bin/python -m pip install --quiet pip-tools
	@$(VENV)-lock/bin/pip-compile --quiet --extra dev --extra objectstore --strip-extras --no-emit-index-url --no-emit-find-links \
		--no-emit-trusted-host --no-emit-options --no-annotate --no-header -o requirements.lock pyproject.toml
	@rm -rf $(VENV)-lock

clean: ## remove .venv, caches and runs
	rm -rf $(VENV) runs build *.egg-info .pytest_cache .mypy_cache .ruff_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
