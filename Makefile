# Needs Linux, Python 3.11 or newer, Rust and make. Everything else is pinned and installed into $(VENV).
PYTHON ?= python3
VENV ?= .venv
PYTEST ?= tests

BIN := $(VENV)/bin
TARGET := $(abspath $(or $(CARGO_TARGET_DIR),target))
SOURCES := Cargo.toml Cargo.lock pyproject.toml $(shell find rust python -name '*.rs' -o -name '*.toml' -o -name '*.py' -o -name '*.pyi')
REQUIREMENTS := $(wildcard requirements/build.txt requirements/check.txt requirements/test.txt)

# rustup looks for its toolchains under HOME; with another HOME they are still beside the cargo that was found.
CARGO := $(shell command -v cargo 2>/dev/null)
RUST_HOME := $(patsubst %/.cargo/bin/cargo,%,$(CARGO))
ifneq ($(RUST_HOME),$(CARGO))
export RUSTUP_HOME ?= $(RUST_HOME)/.rustup
export CARGO_HOME ?= $(RUST_HOME)/.cargo
endif
export PYTHONDONTWRITEBYTECODE := 1

.DEFAULT_GOAL := help
.PHONY: help demo test prove check rust-tests python-tests bench sabotage soak wheel

help: ## list the targets
	@sed -n 's/^\([a-z-]*\):.*## /\1\t/p' $(firstword $(MAKEFILE_LIST)) | expand -t 14

demo: $(VENV)/.installed ## run every CDNOW purchase through a store, with a kill -9 on the way, and check the sums
	$(BIN)/python examples/cdnow.py demo

test: check python-tests rust-tests ## build the wheel, install it, lint, check types, run all tests

prove: $(VENV)/.installed $(VENV)/.bench ## check every claim, print a row for each: figure, bound, cases, PASS or FAIL
	$(BIN)/python tools/prove.py

sabotage: $(VENV)/.tools $(VENV)/.cargo ## break promises on purpose and show which test notices each
	$(BIN)/python tools/sabotage.py

soak: $(VENV)/.installed $(VENV)/.bench ## check every claim for longer, with 10,000 kills
	$(BIN)/python tools/prove.py --soak

check: $(VENV)/.installed ## lint and check types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	cargo fmt --all --check
	PYO3_PYTHON=$(abspath $(BIN)/python) cargo clippy --workspace --all-targets --locked -- -D warnings
	$(BIN)/mypy
	$(BIN)/basedpyright --pythonpath $(BIN)/python
	$(BIN)/stubtest --mypy-config-file pyproject.toml ego._native

rust-tests: | $(VENV)/.cargo ## run the Rust tests
	cargo test --package ego-core --locked

python-tests: $(VENV)/.installed ## run the Python tests on the installed wheel; PYTEST="tests/unit -k name" picks some
	$(BIN)/python -X dev -m pytest $(PYTEST)

bench: $(VENV)/.installed $(VENV)/.bench ## measure everything beside its baseline, print the ratios
	$(BIN)/python benches/run.py $(if $(BASE),--base $(BASE))

wheel: $(VENV)/.tools $(VENV)/.cargo ## build the wheel and the sdist into dist/, and install each with pip
	rm -rf dist
	$(BIN)/maturin build --release --locked --interpreter $(BIN)/python --out dist
	$(BIN)/maturin sdist --out dist
	for package in dist/*; do \
		$(BIN)/python -m venv --clear $(VENV)/fresh && \
		CARGO_TARGET_DIR=$(TARGET) $(VENV)/fresh/bin/python -m pip install --quiet $$package && \
		$(VENV)/fresh/bin/python -I -c "import ego; print('$$package installs ego', ego.__version__)" || exit 1; \
	done

$(VENV)/.installed: $(SOURCES) $(VENV)/.tools | $(VENV)/.cargo
	rm -rf $(VENV)/wheel
	$(BIN)/maturin build --release --locked --interpreter $(BIN)/python --out $(VENV)/wheel
	$(BIN)/python -m pip install --quiet --no-deps --force-reinstall $(VENV)/wheel/ego_engine-*.whl
	touch $@

$(VENV)/.tools: $(REQUIREMENTS)
	@command -v $(PYTHON) >/dev/null || { echo "ego needs Python 3.11 or newer: there is no $(PYTHON); say make PYTHON=/path/to/python"; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "ego needs Python 3.11 or newer: $(PYTHON) is $$($(PYTHON) --version); say make PYTHON=/path/to/python"; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' || \
		{ echo "ego needs Python's venv module: $(PYTHON) has none (on Debian it is the package python3-venv)"; exit 1; }
	$(PYTHON) -m venv --clear $(VENV)
	$(BIN)/python -m pip install --quiet $(REQUIREMENTS:%=-r %)
	touch $@

$(VENV)/.bench: requirements/bench.txt $(VENV)/.tools
	$(BIN)/python -m pip install --quiet -r requirements/bench.txt
	touch $@

$(VENV)/.cargo: | $(VENV)/.tools
	@cargo --version >/dev/null 2>&1 || { echo "ego needs Rust 1.89 or newer: cargo was not found or does not run"; exit 1; }
	touch $@
