#!/bin/sh
# Builds the runner as a static binary, which every kernel container mounts, and prints
# its path. `PROFILE=dev` builds faster and larger.
#
# It has its own target folder: its RUSTFLAGS would make cargo rebuild everything else.
# `--target` is needed, or the flags would reach the procedural macros too.
set -eu
cd "$(dirname "$0")/.."
profile=${PROFILE:-small}
target="$(uname -m)-unknown-linux-gnu"
folder="${CARGO_TARGET_DIR:-$PWD/target}/static"
RUSTFLAGS="-C target-feature=+crt-static" cargo build --quiet \
    -p backendai-kernel-runner --target "$target" --profile "$profile" \
    --target-dir "$folder" >&2
[ "$profile" = dev ] && profile=debug
echo "$folder/$target/$profile/backendai-kernel-runner"
