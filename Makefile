# `make demo` and `make test` are all a newcomer types. The first run sets up .venv, later ones reuse it.
# Another interpreter: make PYTHON=python3.12. More arguments: make test PYTEST_ARGS="-k packing -x".

PYTHON ?= python3
PYTEST_ARGS ?=
DEMO_ARGS ?=

VENV := .venv
BIN := $(VENV)/bin
LOGS := build/logs
ENVIRONMENT := $(VENV)/.lobit-environment
NATIVE := $(VENV)/.lobit-native
NATIVE_TESTS := build/native
NATIVE_SOURCES := CMakeLists.txt $(shell find native -type f \( -name '*.c' -o -name '*.h' -o -name '*.cpp' -o -name '*.txt' -o -name '*.cmake' -o -name '*.map' \))
# An environment belongs to one place, and to the interpreter that was asked for: a moved or copied clone gets its own.
PLACE := $(VENV)/.lobit-place
INTERPRETER := $(VENV)/.lobit-python
ifneq ($(shell cat $(PLACE) 2>/dev/null),$(CURDIR))
$(shell rm -f $(ENVIRONMENT) $(NATIVE))
STALE := yes
else ifneq ($(origin PYTHON),file)
ifneq ($(shell cat $(INTERPRETER) 2>/dev/null),$(PYTHON))
$(shell rm -f $(ENVIRONMENT) $(NATIVE))
STALE := yes
endif
endif
PIP := $(BIN)/python -m pip --disable-pip-version-check --no-input

.PHONY: help demo test setup native-test lint format wheel bench docs pages clean preflight
.DEFAULT_GOAL := help

help:
	@echo "make demo    train, export and run small nets on handwritten digits; writes lobit-demo/"
	@echo "make test    all tests: Python, native, doctests"
	@echo "make lint    ruff, mypy, import rules, clang-format    make format  lay out the code"
	@echo "make wheel   a manylinux x86-64 wheel in dist/         make bench   latency beside the peers"
	@echo "make docs    the documents, in build/site            make pages   what they show of the code"
	@echo "make setup   .venv alone                               make clean   remove what was built"

demo: setup
	@$(BIN)/lobit demo $(DEMO_ARGS)

test: setup native-test
	@$(BIN)/python -m pytest $(PYTEST_ARGS)

setup: preflight $(NATIVE)

preflight:
	@sh scripts/preflight "$(PYTHON)"

# Packages. --no-build-isolation later lets the native build reuse this pinned toolchain and its own build folder.
$(ENVIRONMENT): pyproject.toml constraints.txt | preflight
	@[ ! -e $(VENV) ] || [ -e $(PLACE) ] || rmdir $(VENV) 2>/dev/null || { echo "$(VENV) was not made by lobit; move it away, then run the same make command again" >&2; exit 2; }
	@{ [ -z "$(STALE)" ] && $(PIP) --version >/dev/null 2>&1; } || { rm -rf $(VENV) && mkdir $(VENV) && printf '%s\n' "$(CURDIR)" >$(PLACE) && \
		sh scripts/step "Creating $(VENV)" "a few seconds" build/logs/venv.log "$(PYTHON)" -m venv $(VENV); }
	@rm -rf build/editable build/native
	@sh scripts/step "Installing the build tools" "under a minute" $(LOGS)/tools.log $(PIP) install -c constraints.txt scikit-build-core nanobind cmake ninja
	@sh scripts/step "Installing PyTorch and the other packages, pinned" "2 to 10 minutes, once" $(LOGS)/packages.log \
		$(PIP) install -c constraints.txt $$($(BIN)/python scripts/requirements.py dev)
	@printf '%s\n' "$(PYTHON)" >$(INTERPRETER)
	@touch $@

# A module left in src/ by a hand-made build would shadow or outlive this one.
$(NATIVE): $(ENVIRONMENT) $(NATIVE_SOURCES)
	@rm -f src/lobit/_native*.so
	@sh scripts/step "Building the native code" "about a minute" $(LOGS)/native.log $(PIP) install --no-deps --no-build-isolation --config-settings=build-dir=build/editable -e .
	@touch $@

native-test: setup
	@sh scripts/step "Building the native tests" "under a minute, once" $(LOGS)/native-tests.log sh scripts/native_tests build $(NATIVE_TESTS) $(BIN)
	@sh scripts/native_tests run $(NATIVE_TESTS) $(BIN)

lint: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	find native -name '*.[ch]' -o -name '*.cpp' | xargs $(BIN)/clang-format --dry-run --Werror

format: setup
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .
	find native -name '*.[ch]' -o -name '*.cpp' | xargs $(BIN)/clang-format -i

wheel: preflight
	@sh scripts/step "Building a manylinux wheel" "about a minute" $(LOGS)/wheel.log sh scripts/wheel "$(PYTHON)" dist
	@ls dist/*.whl

bench: setup
	$(BIN)/python -m benchmarks.mlp

# Pages and pictures that are made from other things; tests say when they are stale.
pages: setup
	$(BIN)/python -m scripts.command_page
	$(BIN)/python -m scripts.kernel_page
	$(BIN)/python -m scripts.concepts_figure
	$(BIN)/python -m scripts.readme_figure
	$(BIN)/python -m scripts.sweep_page

docs: setup
	@NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --strict
	@echo "build/site/index.html"

clean:
	rm -rf $(VENV) build dist lobit-demo .mypy_cache .ruff_cache .pytest_cache .hypothesis
	rm -f src/lobit/_native*.so
