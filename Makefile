# Two commands on a fresh machine: `make demo` and `make test`. Each sets itself up, once.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
SHOWN := (Downloading|Using cached) [^ ]+ \(([3-9][0-9]|[0-9]{3,})\.[0-9]+ MB\)|^Installing collected packages|^ERROR.*|^error.*

.DEFAULT_GOAL := help
.PHONY: help setup demo test test-unit test-slow test-systems bench bench-smoke lint docs clean

help:
	@echo "make demo        set up, then go from a real slide to an augmented dataset and a report"
	@echo "make test        set up, then run the tests"
	@echo "make test-unit   those that take a moment each"
	@echo "make test-slow   the tests that take minutes"
	@echo "make test-systems   measure all published systems: hours, gone on with after a break (NAME=ddib: one of them)"
	@echo "make bench       the benchmarks in full (bench-smoke: small sizes)"
	@echo "make lint        style, import directions, types, links of the docs"
	@echo "make docs        the docs as a site, in site/"

setup: $(READY)

$(READY): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
		|| { echo "histoloom needs Python 3.11 or newer; $(PYTHON) is older. Try: make PYTHON=python3.12 demo"; exit 1; }
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV) \
		|| { rm -rf $(VENV); echo "The venv module is missing. On Debian: apt-get install python3-venv"; exit 1; }
	@echo "Setting up, once: 2 to 3 minutes on a quiet machine, and 7 GB."
	@echo "1 of 2: packages. Those above 30 MB are listed; $(VENV)/setup.log has all that pip says."
	@{ $(BIN)/python -m pip install --no-compile --disable-pip-version-check -c constraints.txt -e '.[dev]' 2>&1 || echo "pip failed"; } \
		| tee $(VENV)/setup.log | grep --line-buffered -oE '$(SHOWN)' || true
	@! grep -qx "pip failed" $(VENV)/setup.log || { echo "pip failed. See $(VENV)/setup.log; run this again to go on."; exit 1; }
	@echo "2 of 2: compiling them, on all cores"
	@$(BIN)/python -m compileall -qq -j 0 $(VENV)/lib || true # pip would take one core; some packages hold files that don't compile
	@touch $@
	@echo "Done. For the commands: . $(VENV)/bin/activate, then histoloom sample look"

demo: setup
	@PATH="$(CURDIR)/$(BIN):$$PATH" $(BIN)/dvc repro
	@echo
	@echo "The report: $(CURDIR)/reports/index.html"
	@echo "The dataset: $(CURDIR)/data/dataset"

test: setup
	@PATH="$(CURDIR)/$(BIN):$$PATH" $(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder

test-unit: setup
	@PATH="$(CURDIR)/$(BIN):$$PATH" $(BIN)/python -m pytest -n 2 -m 'not slow and not long'

test-slow: setup
	@PATH="$(CURDIR)/$(BIN):$$PATH" $(BIN)/python -m pytest -m slow -o faulthandler_timeout=7200

test-systems: setup
	@PATH="$(CURDIR)/$(BIN):$$PATH" $(BIN)/python -m pytest -m slow tests/test_systems.py -k "$(or $(NAME),comes)" \
		-n 2 --dist worksteal -o faulthandler_timeout=7200 -v

bench bench-smoke: setup
	@mkdir -p reports/benchmarks
	@test -n "$(HISTOLOOM_REAL_DATA)$(filter bench-smoke,$@)" \
		|| echo "HISTOLOOM_REAL_DATA is not set: benchmarks.tissue, filters, conditions and canvas are left out (docs/how-to/develop.md)"
	@set -e; for name in tiling tile_sets sampling precision $(if $(HISTOLOOM_REAL_DATA)$(filter bench-smoke,$@),tissue filters conditions canvas); do \
		$(BIN)/python -m benchmarks.$$name $(if $(filter bench-smoke,$@),--smoke) --json reports/benchmarks/$$name.json; done

lint: setup
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/lint-imports
	@$(BIN)/mypy
	@$(BIN)/zensical build --strict --clean

docs: setup
	@$(BIN)/zensical build --strict --clean
	@echo "The site: $(CURDIR)/site/index.html"

clean:
	rm -rf $(VENV) .work .pytest_cache .hypothesis site
