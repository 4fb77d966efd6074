# The two commands of a new user are `make demo` and `make test`. Everything else is `cargo xtask help`.

RUST_MIN := 1.95.0

.DEFAULT_GOAL := help
.PHONY: help demo test soak build fmt clean rust

help:
	@echo 'make demo         keep a small shop available while it is killed and replaced; Ctrl-C ends it'
	@echo 'make demo ONCE=1  the same, and exit with the verdict'
	@echo 'make test         install what tests need, then run every check'
	@echo 'make soak         simulate 50,000 seeds, then kill our own processes and the broker at random under load'
	@echo 'make build        build target/release/mainstay'
	@echo 'make fmt          format the code'
	@echo 'make clean        delete what was built'
	@echo
	@echo 'Single checks: cargo xtask help'

demo: rust
	cargo xtask demo $(if $(ONCE),--once)

test: rust
	cargo fetch --locked --quiet
	cargo xtask setup
	cargo xtask ci

soak: rust
	cargo xtask sim --seeds 50000
	cargo xtask soak

build: rust
	cargo build --release --locked --package mainstay

fmt: rust
	cargo fmt --all
	cargo fmt --manifest-path fuzz/Cargo.toml

clean: rust
	cargo clean --quiet
	cargo clean --quiet --manifest-path fuzz/Cargo.toml

# Rust, new enough, and a C compiler: what set-up cannot bring, because it is built with them.
rust:
	@command -v cargo >/dev/null || { \
	  echo 'Mainstay needs Rust $(RUST_MIN) or newer, and there is no cargo in PATH.'; \
	  echo 'Get it from https://rustup.rs (the package of Debian 12 is too old), then call make again.'; exit 1; } >&2
	@version=$$(RUSTUP_AUTO_INSTALL=0 cargo --version 2>/dev/null | cut -d' ' -f2); \
	if [ -z "$$version" ]; then \
	  echo 'cargo does not start; rustup does not have the toolchain that rust-toolchain.toml names.'; \
	  echo 'Install it: rustup toolchain install $(RUST_MIN) --component clippy,rustfmt'; exit 1; \
	elif [ "$$(printf '%s\n' '$(RUST_MIN)' "$$version" | sort -V | head -n1)" != '$(RUST_MIN)' ]; then \
	  echo "Mainstay needs Rust $(RUST_MIN) or newer, and this is $$version."; \
	  echo 'Get it from https://rustup.rs, then call make again.'; exit 1; \
	fi >&2
	@command -v cc >/dev/null || { \
	  echo 'Mainstay needs a C compiler: sudo apt-get install --no-install-recommends gcc libc6-dev'; exit 1; } >&2
