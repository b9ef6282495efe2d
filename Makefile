# The two commands: `make demo` runs the main job on real input, `make test` runs every test. Both install what they need.
.PHONY: demo test lint unit system fuzz bench build agent-static clean help

export PATH := $(CURDIR)/target/tools/bin:$(PATH)

help:
	@echo 'make demo    study a real SPICE stream on this machine (about three minutes, build aside)'
	@echo 'make test    run every test: lints, licences, walls, unit, property, system, fuzz'
	@echo 'make bench   measure the figures of docs/figures.md on this machine'
	@echo 'make agent-static   build the agent for guests: one file that needs no library'

demo:
	@scripts/setup build run
	@cargo build --release --bins
	@target/release/triptych run studies/quickstart.toml --view

test:
	@scripts/setup build run test
	@$(MAKE) --no-print-directory lint unit fuzz

build:
	@scripts/setup build
	@cargo build --release --bins

# In a target folder of its own: its flags would have everything else built anew.
agent-static: TARGET = $(shell rustc -vV | sed -n 's/^host: //p')
agent-static:
	@scripts/setup build
	RUSTFLAGS='-C target-feature=+crt-static' cargo build --release --locked --no-default-features -p triptych-agent \
	    --target $(TARGET) --target-dir target/static
	@strip -o target/static/triptych-agent target/static/$(TARGET)/release/triptych-agent
	@LC_ALL=C ldd target/static/triptych-agent 2>&1 | grep -Eq 'statically linked|not a dynamic executable' || \
	    { echo 'agent-static: target/static/triptych-agent is not static' >&2; exit 1; }
	@target/static/triptych-agent list --json | grep -q 'NVML was left out of this build' || \
	    { echo 'agent-static: its list does not say that NVML is left out' >&2; exit 1; }
	@echo "target/static/triptych-agent: static, $$(stat -c %s target/static/triptych-agent) bytes"

lint:
	cargo fmt --all --check
	@scripts/tools
	cargo clippy --workspace --all-targets --locked -- -D warnings
	cargo xtask deps
	cargo deny --log-level error check bans licenses sources
	@scripts/advisories

# The system tests start the programs, so these are built first. nextest is used where it is installed.
unit:
	cargo build --workspace --bins --locked
	@if cargo nextest --version >/dev/null 2>&1; then \
	    cargo nextest run --workspace --locked --profile ci; \
	else \
	    cargo test --workspace --locked --exclude system-tests && \
	    cargo test --locked -p system-tests -- --test-threads=1; \
	fi

fuzz:
	cargo xtask fuzz --seconds 15

bench:
	@scripts/setup build run test
	@scripts/bench

clean:
	cargo clean
