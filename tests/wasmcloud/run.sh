#!/usr/bin/env bash
# Builds one unmodified wasmCloud host, apart from everything else, and runs the tests that need it.
#
# Comes after tests/run.sh, which builds the daemons and installs nats-server.
set -euo pipefail
cd "$(dirname "$0")/../.."

package="$PWD/tests/wasmcloud"
# Beside the folder of the other builds, where one is named: the next run compiles nothing.
target="${WASMCLOUD_TARGET_DIR:-${CARGO_TARGET_DIR:+$CARGO_TARGET_DIR-wasmcloud}}"
target="${target:-$package/target}"

echo "== format of what is outside the workspace"
cargo fmt --manifest-path "$package/Cargo.toml" --check

echo "== build: a wasmCloud host (some 580 crates, the first time)"
CARGO_TARGET_DIR="$target" CARGO_INCREMENTAL=0 RUSTC_WRAPPER="$package/rustc.sh" \
    cargo build --release --locked --manifest-path "$package/Cargo.toml"

echo "== tests with that host"
# One at a time: they measure.
PORTCULLIS_WASMCLOUD_HOST="$target/release/wasmcloud-host-under-test" \
    cargo test --release --workspace --test wasmcloud --no-fail-fast -- --ignored --show-output --test-threads=1 "$@"
