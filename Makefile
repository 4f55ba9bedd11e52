# Every verb explains itself: `make help`.
SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
MAKEFLAGS += --no-print-directory

# Services, tests and benchmarks start many processes, each of which would compile everything anew.
unexport PYTHONDONTWRITEBYTECODE

PYTHON ?= python3
BIN := .venv/bin
INSTALLED := .venv/.installed
LOCKS := requirements.txt requirements-all.txt requirements-uv.txt
NEEDED := --group bench --group build --group check --group services --group test
COMPILE := $(BIN)/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes \
  --no-header --no-annotate --no-emit-index-url --no-emit-find-links

.PHONY: help install demo up test unit coverage newest fuzz soak long check format bench bench-report docs build smoke lock clean

help: ## Show this
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-12s %s\n", $$1, $$2}' $(MAKEFILE_LIST)
	@echo
	@echo '  ARGS="..." goes to the program behind demo, up, test, newest and bench; PYTHON names another Python.'

install: $(INSTALLED) ## Make .venv with everything pinned; again only when the pins change

$(INSTALLED): $(LOCKS) pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit("glam-shared needs Python 3.11 or newer, and this is %d.%d; name another: make install PYTHON=python3.12" % sys.version_info[:2] if sys.version_info < (3, 11) else 0)'
	@test -x $(BIN)/python || $(PYTHON) -m venv .venv
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements-uv.txt
	@$(BIN)/uv pip sync --quiet --compile-bytecode --require-hashes requirements-uv.txt requirements-all.txt
	@$(BIN)/uv pip install --quiet --no-deps --no-build-isolation --editable .
	@touch $@

demo: install ## Play a day of a shop on real servers, and check it (ORDERS=FILE COUNT=N SEED=N KEEP=1 FAST=1)
	@$(BIN)/python -m demo $(if $(ORDERS),--orders $(ORDERS)) $(if $(COUNT),--count $(COUNT)) \
	  $(if $(SEED),--seed $(SEED)) $(if $(KEEP),--keep) $(if $(FAST),--fast) $(ARGS)

up: install ## Start servers and services for development, with reload
	@$(BIN)/glam up $(ARGS)

test: install ## Run all tests, on real servers; they mostly wait, so four at once
	@$(BIN)/python -m pytest -n 4 --dist worksteal $(ARGS)

newest: install ## Run the tests on the newest releases that the bounds in pyproject.toml allow
	@scripts/with-dependencies highest -n 4 --dist worksteal $(ARGS)

unit: install ## Run the tests that start no server, in less than a minute
	@$(BIN)/python -m pytest -n 3 --dist worksteal -m unit $(ARGS)

coverage: install ## Run all tests, and hold what they reach against the floor in pyproject.toml
	@rm -f .coverage .coverage.*
	@$(BIN)/coverage run -m pytest -n 4 --dist worksteal $(ARGS)
	@$(BIN)/coverage combine --quiet
	@$(BIN)/coverage report $(if $(MISSING),,| tail -1)
	@$(BIN)/python scripts/coverage-floor

fuzz: install ## Send the services thousands of good and bad requests (EXAMPLES=N SEED=N)
	@GLAM_FUZZ_EXAMPLES=$(or $(EXAMPLES),200) GLAM_FUZZ_SEED=$(or $(SEED),1) \
	  $(BIN)/python -m pytest tests/fuzz $(ARGS)

soak: install ## Break real services at random, and prove that nothing is lost (MINUTES=10 SEED=N)
	@$(BIN)/python -m soak --minutes $(or $(MINUTES),10) $(if $(SEED),--seed $(SEED)) $(ARGS)

long: install ## What takes longer: coverage, oldest and newest dependencies, ten seeds, faults (MINUTES=30)
	@$(MAKE) coverage
	@scripts/with-dependencies lowest-direct -n 4 --dist worksteal
	@scripts/with-dependencies highest -n 4 --dist worksteal
	@for seed in {1..10}; do echo "seed $$seed"; \
	  $(BIN)/python -m pytest -q -n 4 --dist worksteal -m unit --hypothesis-seed=$$seed; \
	  GLAM_FUZZ_EXAMPLES=50 GLAM_FUZZ_SEED=$$seed $(BIN)/python -m pytest -q tests/fuzz; done
	@$(BIN)/python -m soak --minutes $(or $(MINUTES),30)

check: install ## Check style, types, the house rules and the lock of contracts
	@$(BIN)/ruff check
	@$(BIN)/ruff format --check
	@$(BIN)/mypy
	@$(BIN)/basedpyright
	@$(BIN)/python -m pytest -q -p no:cacheprovider tests/test_house.py
	@$(BIN)/glam contracts check

format: install ## Put the code in its form
	@$(BIN)/ruff check --fix
	@$(BIN)/ruff format

bench: install ## Measure ours against named peers, for docs/performance.md (only=publish for one part)
	@$(BIN)/python -m benchmarks $(only) --docs $(ARGS)

bench-report: install ## Put results kept before into docs/performance.md (SAVED=FILE)
	@$(BIN)/python -m benchmarks.report $(SAVED)

docs: install ## Run the examples of README and docs
	@$(BIN)/python -m pytest tests/test_readme.py

build: install ## Build the wheel into dist
	@rm -rf dist
	@$(BIN)/uv build --quiet --wheel --no-build-isolation --python $(BIN)/python

smoke: build ## Install the wheel into an empty environment and try it there
	@scripts/smoke dist/*.whl

lock: install ## Pin the newest versions of all dependencies, with hashes
	@echo uv | $(COMPILE) --upgrade --output-file requirements-uv.txt -
	@$(COMPILE) --upgrade --all-extras $(NEEDED) --output-file requirements-all.txt pyproject.toml
	@$(COMPILE) --constraints requirements-all.txt --output-file requirements.txt pyproject.toml

clean: ## Remove what was built and cached; .venv stays
	@rm -rf dist site .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
