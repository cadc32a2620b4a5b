#!/usr/bin/env bash
# Builds the guest components from their sources.
#
#   build.sh            builds them and puts them where they are checked in, with the record of how (components.lock)
#   build.sh --check    builds them apart and fails where a checked-in component is not what its source gives
#
# Needs a wasm toolchain, the first of these that is there:
#   Debian   apt-get install rustc-web cargo-web rust-web-src lld
#   rustup   rustup target add wasm32-unknown-unknown
# The bytes depend on the compiler. With the compiler of the record, `--check` compares byte for byte; with another it
# compares the sources with those of the record, and sees that they still build.
set -euo pipefail

guests=(badge checkout mirror shelf)
target=wasm32-unknown-unknown

cd "$(dirname "${BASH_SOURCE[0]}")"

mode=build
case "${1-}" in
'') ;;
--check) mode=check ;;
*)
    sed -n '2,/^set /{/^set /d;s/^# \{0,1\}//;p}' "${BASH_SOURCE[0]}"
    [[ $1 == --help ]] && exit 0
    exit 2
    ;;
esac

say() { printf '%s\n' "guests: $*" >&2; }

# Nothing that a caller has set for its own builds may change these.
unset RUSTFLAGS CARGO_ENCODED_RUSTFLAGS CARGO_BUILD_RUSTFLAGS CARGO_BUILD_TARGET RUSTC_WRAPPER RUSTC_WORKSPACE_WRAPPER \
    CARGO_BUILD_RUSTC_WRAPPER CARGO_INCREMENTAL RUSTC CARGO
export CARGO_TARGET_DIR="${CARGO_TARGET_DIR:-$PWD/target}/guests"

packages=()
for guest in "${guests[@]}"; do packages+=(-p "$guest"); done

# Debian's `rust-web-src` brings the source of the standard library.
if [[ -x /usr/bin/rustc && -x /usr/bin/cargo && -d /usr/lib/rustlib/src/rust/library ]] && command -v wasm-ld >/dev/null; then
    toolchain="debian $(/usr/bin/rustc --version)"
    compile() {
        PATH=/usr/bin:$PATH RUSTC=/usr/bin/rustc RUSTC_BOOTSTRAP=1 CARGO_TARGET_WASM32_UNKNOWN_UNKNOWN_LINKER=wasm-ld \
            RUSTFLAGS='-Zunstable-options -Cpanic=immediate-abort -Zlocation-detail=none' \
            /usr/bin/cargo build --quiet --locked --release --target "$target" "${packages[@]}" \
            -Zbuild-std=std -Zbuild-std-features=optimize_for_size
    }
elif command -v rustup >/dev/null && { rustup target list --installed | grep -qx "$target" || rustup target add "$target"; }; then
    toolchain="rustup $(rustc --version)"
    compile() { cargo build --quiet --locked --release --target "$target" "${packages[@]}"; }
else
    say 'no wasm toolchain: `apt-get install rustc-web cargo-web rust-web-src lld`, or `rustup target add wasm32-unknown-unknown`'
    exit 1
fi

digest() { sha256sum | cut -d ' ' -f 1; }

# One digest over everything that a component is made from: paths and contents, in an order that no locale changes.
sources_of() {
    {
        printf '%s\n' build.sh Cargo.toml Cargo.lock
        find "$1" componentize ../invoices/wit -type f ! -name '*.wasm'
    } | LC_ALL=C sort | while IFS= read -r path; do sha256sum "$path"; done | digest
}

recorded() { sed -n "s/^$1 $2 //p" components.lock; }

say "building with $toolchain"
compile
cargo build --quiet --locked -p componentize

built=$(mktemp -d)
trap 'rm -rf "$built"' EXIT
for guest in "${guests[@]}"; do
    "$CARGO_TARGET_DIR/debug/componentize" "$CARGO_TARGET_DIR/$target/release/$guest.wasm" "$built/$guest.wasm"
done

if [[ $mode == build ]]; then
    {
        printf '%s\n' '# What the checked-in components were made from, and by what. Written by build.sh.'
        for guest in "${guests[@]}"; do
            mv "$built/$guest.wasm" "$guest/$guest.wasm"
            printf '%s\n' "$guest toolchain $toolchain" "$guest sources $(sources_of "$guest")" \
                "$guest component $(digest <"$guest/$guest.wasm")"
            say "wrote $guest/$guest.wasm, $(stat -c %s "$guest/$guest.wasm") bytes"
        done
    } >"$built/components.lock"
    mv "$built/components.lock" components.lock
    exit 0
fi

failed=0
for guest in "${guests[@]}"; do
    if [[ $(digest <"$guest/$guest.wasm") != "$(recorded "$guest" component)" ]]; then
        say "$guest/$guest.wasm is not the component of the record: run build.sh"
        failed=1
    elif [[ $(sources_of "$guest") != "$(recorded "$guest" sources)" ]]; then
        say "the sources of $guest have changed since $guest/$guest.wasm was built: run build.sh"
        failed=1
    elif [[ $toolchain != "$(recorded "$guest" toolchain)" ]]; then
        say "$guest/$guest.wasm was made from these sources, by another compiler: $(recorded "$guest" toolchain); bytes not compared"
    elif ! cmp "$guest/$guest.wasm" "$built/$guest.wasm"; then
        say "$guest/$guest.wasm is not what its source gives: run build.sh"
        failed=1
    else
        say "$guest/$guest.wasm is what its source gives"
    fi
done
exit "$failed"
