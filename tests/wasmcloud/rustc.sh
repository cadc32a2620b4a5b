#!/bin/sh
# Compiles as the compiler does, but for one thing: `wasmcloud_host` 0.27.1 needs a larger recursion limit with current compilers.
rustc=$1
shift
case " $* " in
*' --crate-name wasmcloud_host '*) RUSTC_BOOTSTRAP=1 exec "$rustc" "$@" '-Zcrate-attr=recursion_limit="512"' ;;
*) exec "$rustc" "$@" ;;
esac
