# nest-relay: `make demo` shows it running, `make test` proves it, `make bench` measures it.

PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin

.PHONY: help demo test lint types unit browser bench wheel containers clean

help: ## what can be made
	@grep -hE '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z]+):.*## /  make \1\t/'

demo: $(VENV)/installed ## six simulated cameras on a page, relayed live; Ctrl-C ends it
	@$(BIN)/relay-supervisor demo $(ARGS)

test: lint types ## everything that is checked: lint, types, tests on real media and a real browser
	@$(MAKE) --no-print-directory browser
	$(BIN)/pytest $(ARGS)

lint: $(VENV)/installed-dev ## ruff
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(VENV)/installed-dev ## mypy --strict
	$(BIN)/mypy

unit: $(VENV)/installed-dev ## the quick tests only
	$(BIN)/pytest tests/unit $(ARGS)

bench: $(VENV)/installed-dev ## measure against the bars, alone on the machine; PEERS=1 compares with go2rtc and FFmpeg
	$(BIN)/python -m tests.benchmarks $(if $(PEERS),--peers) $(ARGS)

wheel: $(VENV)/python ## the wheel, into dist/
	@rm -rf build
	$(BIN)/pip wheel --quiet --disable-pip-version-check --no-deps --wheel-dir dist .
	@rm -rf build; ls dist/*.whl

containers: ## build the image and run it for real, from nothing (root on Debian; a few minutes)
	deploy/check-containers.sh

browser: ## Debian's Chromium for the browser tests, when it is missing and we may install it
	@if command -v chromium >/dev/null; then :; \
	elif [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null; then \
		echo "installing chromium for the browser tests"; \
		(apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends chromium) >/dev/null; \
	else \
		echo "chromium is missing and this is not root on Debian: the browser tests will be skipped (apt install chromium)"; \
	fi

clean: ## remove the virtual environment and caches
	rm -rf $(VENV) .pytest_cache .mypy_cache .ruff_cache .hypothesis *.egg-info

$(VENV)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "Python 3.11 or newer is needed (make PYTHON=…)"; exit 1; }
	@echo "creating the virtual environment in $(VENV)"
	@$(PYTHON) -m venv $(VENV) || { echo "python3-venv is missing: apt install python3-venv"; exit 1; }
	@touch $@

$(VENV)/installed: $(VENV)/python pyproject.toml
	@echo "installing the relay and its libraries"
	@$(BIN)/pip install --quiet --disable-pip-version-check -e .
	@touch $@

$(VENV)/installed-dev: $(VENV)/python pyproject.toml
	@echo "installing the relay, its libraries and the test tools"
	@$(BIN)/pip install --quiet --disable-pip-version-check -e '.[dev]'
	@touch $@ $(VENV)/installed
