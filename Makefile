# Every target that is for people has a line `## target: text`; `make help` prints these lines.

SHELL := /bin/bash
.DEFAULT_GOAL := help
.PHONY: help test check bench bench-plane run redis plane clean tools

# What is needed beside Rust, as command=package of Debian. A C compiler, because two crates
# bring C code and Rust links with it; Chromium, because the tests look at report.html in it; Redis
# and openssl, because the tests sample a real server, with TLS too; Prometheus, because they have it
# read what is in deploy/; gdb, because memray gets into a running process by it; faketime and ip, because the
# tests give a worker a wrong clock, and hosts of their own.
TOOLS := cc=build-essential /usr/bin/chromium=chromium redis-server=redis-server openssl=openssl \
	prometheus=prometheus gdb=gdb faketime=faketime ip=iproute2

# The profilers that the tests run, from PyPI, in a place of their own.
PYTHON := $(or $(CARGO_TARGET_DIR),target)/python

## help: list the targets (the default)
help:
	@sed -n 's/^## \([a-z-]*\): \(.*\)/  make \1|\2/p' $(firstword $(MAKEFILE_LIST)) \
		| while IFS='|' read -r target text; do printf '%-14s %s\n' "$$target" "$$text"; done

# Tests wait more than they work, for processes, leases and deadlines.
THREADS := $(shell echo $$(( ($$(nproc) * 3 + 1) / 2 )))

## test: install what the tests need (Debian, as root), then run all tests
test: tools $(PYTHON)/ready
	@RUST_TEST_THREADS=$(THREADS) cargo test

## check: formatting, lints, all tests and the documentation: what a change must pass
check: tools $(PYTHON)/ready
	cargo fmt --check
	cargo clippy --all-targets -- -D warnings
	RUST_TEST_THREADS=$(THREADS) cargo test
	RUSTDOCFLAGS="-D warnings" cargo doc --no-deps --document-private-items

## bench: measure springtide itself
bench:
	cargo bench --bench budgets
	cargo bench --bench tap

## bench-plane: measure the plane with a thousand workers
bench-plane: TOOLS := redis-server=redis-server
bench-plane: tools
	cargo bench --bench plane

## run: ten users of scenario S6 against the built-in stand-in; more flags go into ARGS
run:
	cargo run --release -- --scenario S6 --users 10 $(ARGS)

## redis: a Redis for trying things out, on a free loopback port until Ctrl-C; it keeps nothing
redis: TOOLS := redis-server=redis-server
redis: tools
	@while :; do \
		port=$$((20000 + RANDOM % 20000)); \
		(exec 3<>/dev/tcp/127.0.0.1/$$port) 2>/dev/null || break; \
	done; \
	echo "redis://127.0.0.1:$$port/0"; \
	exec redis-server --bind 127.0.0.1 --port $$port --save '' --appendonly no \
		--maxmemory 1gb --maxmemory-policy noeviction --daemonize no --loglevel warning

## plane: the Redis of a plane for trying out many workers, on a free loopback port until Ctrl-C; it keeps nothing
plane: TOOLS := redis-server=redis-server
plane: tools
	@while :; do \
		port=$$((20000 + RANDOM % 20000)); \
		(exec 3<>/dev/tcp/127.0.0.1/$$port) 2>/dev/null || break; \
	done; \
	folder=$$(mktemp -d); \
	trap 'kill $$server 2>/dev/null; wait $$server; rm -rf "$$folder"' EXIT; \
	trap 'exit 0' INT TERM HUP; \
	redis-server --bind 127.0.0.1 --port $$port --dir "$$folder" --save '' --appendonly yes --appendfsync always \
		--maxmemory 1gb --maxmemory-policy noeviction --daemonize no --loglevel warning & \
	server=$$!; \
	echo "redis://127.0.0.1:$$port/0"; \
	wait $$server

## clean: remove what was built; reports stay
clean:
	cargo clean

# Installs what is missing and says nothing when nothing is. A package that brings a server must not
# start it: the tests start their own.
tools:
	@missing=; \
	for tool in $(TOOLS); do \
		command -v "$${tool%%=*}" >/dev/null || missing="$$missing $${tool#*=}"; \
	done; \
	python3 -c 'import ensurepip, venv' 2>/dev/null || missing="$$missing python3-venv"; \
	[ -n "$$missing" ] || exit 0; \
	if ! command -v apt-get >/dev/null; then \
		echo "make: needed and not there:$$missing (names of Debian packages); install what your system has for it" >&2; \
		exit 1; \
	fi; \
	if [ "$$(id -u)" != 0 ]; then \
		echo "make: needed and not there:$$missing; install with: sudo apt-get install$$missing" >&2; \
		exit 1; \
	fi; \
	echo "make: installing$$missing" >&2; \
	export DEBIAN_FRONTEND=noninteractive; \
	policy=/usr/sbin/policy-rc.d; \
	if [ ! -e $$policy ]; then \
		printf '#!/bin/sh\nexit 101\n' >$$policy && chmod +x $$policy; \
		trap "rm -f $$policy" EXIT; \
	fi; \
	{ apt-get -q -o DPkg::Lock::Timeout=300 -o Acquire::Retries=3 update \
		&& apt-get -q -y -o DPkg::Lock::Timeout=300 -o Acquire::Retries=3 \
			install --no-install-recommends $$missing; } </dev/null >&2 \
		|| { echo "make: could not install$$missing" >&2; exit 1; }

# Without a network the tests of probes fail, and say so; the others do not need it.
$(PYTHON)/ready: tests/it/python/requirements.txt | tools
	@echo "make: putting py-spy and memray into $(PYTHON)" >&2; \
	{ python3 -m venv --clear $(PYTHON) \
		&& $(PYTHON)/bin/pip install -q --disable-pip-version-check -r $<; } </dev/null >&2 \
		&& touch $@ || echo "make: could not install py-spy and memray" >&2
