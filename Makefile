# Naiad's verbs. Everything is created under this folder: .venv (Python packages), .tools (uv, Rust where the system
# has none), .naiad (the state of the running platform). No target needs root.

SHELL := bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help
MAKEFLAGS += --no-print-directory
BUILD := scripts/python.sh scripts/build.py
CARGO_WORKSPACE := --manifest-path crates/Cargo.toml
export PATH := $(CURDIR)/.venv/bin:$(PATH)
ifneq ($(wildcard .tools/rust/cargo/bin/cargo),)
export RUSTUP_HOME := $(CURDIR)/.tools/rust/rustup
export CARGO_HOME := $(CURDIR)/.tools/rust/cargo
export PATH := $(CARGO_HOME)/bin:$(PATH)
endif

CHECKS := check-rustfmt check-clippy check-deny check-ruff check-format check-mypy check-stubs check-sizes \
	check-imports check-worker

.PHONY: help
help:  ## Print this help
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-14s %s\n", $$1, $$2 }' Makefile

.PHONY: up
up:  ## Build everything, start Naiad, deploy the example, print the call (ARGS="--http-port 0" goes to naiad up)
	@$(BUILD) packages torch core
	@python scripts/up.py $(ARGS)

.PHONY: down
down:  ## Stop what `make up` started
	@if [ -x .venv/bin/naiad ]; then naiad down --state .naiad; else echo "nothing is running: nothing is built"; fi

.PHONY: test
test:  ## Run all tests: Rust, then Python
	@$(BUILD) packages dev models torch core
	@python scripts/debian.py
	cargo test $(CARGO_WORKSPACE) --locked --workspace --exclude naiad-python
	python -m pytest -n 2 --dist loadfile -rs

.PHONY: test-clients
test-clients:  ## Run the clients in examples/clients, in all five languages; as root on Debian, install what they need
	@$(BUILD) packages dev torch core
	@python scripts/debian.py clients
	CLIENTS_MUST_RUN=$(shell python3 -c 'import scripts.debian as d; print("1" * d.may_install())') python -m pytest tests/clients

.PHONY: check
check:  ## Run all linters and type checkers, each to its end (make check-NAME runs one)
	@$(BUILD) packages dev core lint
	@$(MAKE) --keep-going $(CHECKS)
	@echo "make check: all clean"

.PHONY: bench
bench:  ## Measure Naiad beside the real Triton (a quarter of an hour)
	@$(BUILD) packages dev torch core
	python -m benches.run

.PHONY: fuzz
fuzz:  ## Run each fuzz target for FUZZ_SECONDS (60); needs a nightly Rust and `cargo install cargo-fuzz`
	@scripts/fuzz.sh $(FUZZ_SECONDS)

.PHONY: build
build:  ## Create the environment and compile the Rust core
	@$(BUILD) packages torch core

.PHONY: fmt
fmt:  ## Format the Rust and Python code
	@$(BUILD) packages dev lint
	cargo fmt $(CARGO_WORKSPACE) --all
	ruff format .
	ruff check --fix .

.PHONY: lock
lock:  ## Resolve the dependencies anew and write the lock files
	@$(BUILD) packages lock
	cargo update $(CARGO_WORKSPACE)

.PHONY: $(CHECKS)
check-rustfmt:
	cargo fmt $(CARGO_WORKSPACE) --all --check
check-clippy:
	cargo clippy $(CARGO_WORKSPACE) --locked --workspace --all-targets -- -D warnings
check-deny:
	cargo-deny $(CARGO_WORKSPACE) --locked check bans licenses sources
check-ruff:
	ruff check .
check-format:
	ruff format --check .
check-mypy:
	mypy
check-stubs:
	python -m mypy.stubtest naiad._core --mypy-config-file pyproject.toml
check-sizes:
	python scripts/check_sizes.py
check-imports:
	lint-imports
check-worker:
	python scripts/check_worker.py
