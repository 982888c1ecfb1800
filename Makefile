# Everything that is done with this repository. Needs Python 3.11 or newer and make, nothing else:
# each target makes the environment in .venv first, and calls its tools by path, so that nothing
# has to be activated. `make` alone lists the targets.

SHELL := /bin/sh
.DEFAULT_GOAL := help
.SUFFIXES:
.PHONY: help .venv accelerator demo bench test faults check fmt protos lock clean FORCE

PYTHON ?= python3
ARGS ?=
BIN := .venv/bin
RUN := $(BIN)/python -m
STAMP := .venv/.stamp

# Set in the environment, these would point the tools at another installation.
unexport PYTHONHOME PYTHONPATH
# A run of the tests starts hundreds of processes: each would compile every module anew.
unexport PYTHONDONTWRITEBYTECODE
# Here, and not at home: the home folder may not be writable.
export BUF_CACHE_DIR := $(CURDIR)/.venv/.cache/buf

# The stamp holds the folder that the environment was made in: elsewhere it is made anew.
ifneq ($(shell cat $(STAMP) 2>/dev/null),$(CURDIR))
$(STAMP): FORCE
else ifneq ($(shell $(BIN)/python -c 'print("runs")' 2>/dev/null),runs)
$(STAMP): FORCE
endif

help: ## List the targets
	@echo 'usage: make TARGET [ARGS="…"]'
	@echo
	@sed -n 's/^\([a-z.]*\):.*## \(.*\)/  \1|\2/p' Makefile | awk -F'|' '{ printf "%-10s %s\n", $$1, $$2 }'

.venv: $(STAMP) ## Make the environment in .venv, or mend it

$(STAMP): requirements.lock pyproject.toml scripts/venv.sh
	@PYTHON='$(PYTHON)' sh scripts/venv.sh

accelerator: $(STAMP) ## Compile the hot modules anew, where their sources changed
	@$(RUN) zephyr accelerator build

demo: $(STAMP) ## Replay this repository's history through the whole system, and prove it (ARGS="--commits 100")
	@$(RUN) zephyr demo $(ARGS)

# Workers with servers of their own; how many, and which runs what: tests/fixtures/workers.py. One that
# dies ends the run: xdist would begin its tests again in a new one.
PARALLEL := -n auto --max-worker-restart 0
test: $(STAMP) ## Run the whole test suite, on real servers (ARGS="-k cursor", ARGS="-n 0 -k cursor --pdb")
	@$(RUN) pytest $(PARALLEL) $(ARGS)

bench: $(STAMP) accelerator ## Measure the bridge beside its ceiling, on servers of its own (ARGS="--case loaded")
	@$(RUN) zephyr bench bridge $(ARGS)

faults: $(STAMP) ## Run the fault tests in their long form: hundreds of kills (ARGS="-k killed")
	@ZEPHYR_FAULTS=long $(RUN) pytest tests/faults $(ARGS)

check: $(STAMP) ## Check style, types, contracts, generated code and layers
	@echo 'ruff: style'; $(RUN) ruff check .
	@echo 'ruff: format'; $(RUN) ruff format --check .
	@echo 'mypy: types'; $(RUN) mypy
	@echo 'buf: contracts'; $(BIN)/buf lint
	@echo 'protoc: generated code'; $(BIN)/python scripts/protos.py check
	@echo 'import-linter: layers'; $(BIN)/lint-imports --no-logo
	@echo 'All checks passed.'

fmt: $(STAMP) ## Format the code, and mend what ruff can mend
	@$(RUN) ruff check --fix --exit-zero --quiet .
	@$(RUN) ruff format .

protos: $(STAMP) ## Lint the contracts, compare them with main, generate their Python
	@echo 'buf: lint'; $(BIN)/buf lint
	@sh scripts/breaking.sh
	@echo 'protoc: generate'; $(BIN)/python scripts/protos.py generate

# No address of a package index, and no local folder, may stand in a lock.
COMPILE := $(BIN)/uv pip compile --quiet --universal --generate-hashes --no-emit-index-url --no-emit-find-links --no-header -p 3.11
lock: $(STAMP) ## Pin the dependencies of pyproject.toml anew (ARGS="--upgrade")
	$(COMPILE) $(ARGS) --all-extras pyproject.toml -o requirements.lock >/dev/null
	$(COMPILE) -c requirements.lock pyproject.toml -o requirements-runtime.lock >/dev/null
	$(COMPILE) -c requirements.lock --group build -o requirements-build.lock >/dev/null

clean: ## Remove the environment, caches and what was built
	rm -rf .venv dist zephyr/accelerator/compiled .pytest_cache .hypothesis .mypy_cache .ruff_cache .import_linter_cache *.egg-info
	find protos bridge realtime zephyr bench tests scripts -name __pycache__ -type d -prune -exec rm -rf {} +

FORCE:
