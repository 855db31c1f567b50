# Everything is installed in .venv, from wheels, without root. `make` alone says what there is.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip install --disable-pip-version-check -c constraints.txt

.DEFAULT_GOAL := help
.PHONY: help install demo test drill drill-long check docs bench keys clean

help:
	@echo "make demo     label the photos in deploy/photos on a stack of its own"
	@echo "make test     the tests, unit tests first, two at a time"
	@echo "make drill    faults, whole stacks, memory, and installations from the wheel"
	@echo "make drill-long, the drills of tests/drills at the length of the promises: hours"
	@echo "make install  the environment in $(VENV), nothing more"
	@echo "make check    format, lint, types, and a strict build of the documentation"
	@echo "make docs     the documentation, in build/site"
	@echo "make bench    images a second on this machine"
	@echo "make keys     passwords for the containers of deploy/docker/compose.yaml"
	@echo "make clean    remove the environment and what the demo left"
	@echo "PYTHON=python3.12 chooses the interpreter."

install: $(VENV)/.installed

$(VENV)/.made:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
		echo "Imagemill needs Python 3.11 or newer, and '$(PYTHON)' is not; try: make PYTHON=python3.12" >&2; exit 1; }
	@$(PYTHON) -c 'import venv, ensurepip' 2>/dev/null || { \
		echo "'$(PYTHON)' has no venv module; on Debian and Ubuntu: apt-get install python3-venv" >&2; exit 1; }
	$(PYTHON) -m venv $(VENV)
	@touch $@

# Torch first and by itself: the largest download by far, and kept when only our own dependencies change.
$(VENV)/.torch: $(VENV)/.made constraints.txt
	$(PIP) torch
	@touch $@

$(VENV)/.installed: $(VENV)/.torch pyproject.toml
	$(PIP) -e '.[worker,local]'
	@touch $@

$(VENV)/.tests: $(VENV)/.installed
	$(PIP) -e '.[worker,local,test]'
	@touch $@

$(VENV)/.dev: $(VENV)/.tests
	$(PIP) -e '.[worker,local,test,dev,docs]'
	@touch $@

demo: $(VENV)/.installed
	$(BIN)/python -m deploy.demo

# Each of the parallel processes has servers of its own; more than two only wait for each other's torch.
test: $(VENV)/.tests
	$(BIN)/python -m pytest -m "not drill" -n 2 --dist loadfile --no-loadscope-reorder

# One at a time: what is killed, filled up or measured here must not compete with other tests.
drill: $(VENV)/.tests
	$(BIN)/python -m pytest -m drill

drill-long: $(VENV)/.tests
	$(BIN)/python -m pytest --long --timeout 7200 tests/drills

check: $(VENV)/.dev
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(MAKE) docs

# The reference is generated from the code; a dead link or anchor fails the build.
docs: $(VENV)/.dev
	$(BIN)/python docs/generate_reference.py
	$(BIN)/zensical build --strict

keys:
	$(PYTHON) -m deploy.compose_keys

bench: $(VENV)/.installed
	$(BIN)/imagemill-worker bench

clean:
	@if [ -d .imagemill-demo ] && [ -x $(BIN)/imagemill ]; then $(BIN)/imagemill down --data .imagemill-demo; fi
	rm -rf $(VENV) .cache .imagemill-demo build dist docs/reference *.egg-info .mypy_cache .pytest_cache .ruff_cache
