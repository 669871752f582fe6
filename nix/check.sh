#!/bin/sh
# Parses, lints and format-checks every Nix source, and evaluates the host data: all that is
# possible without nixpkgs. Installs what it needs where it is missing. `--data` prints the
# evaluated data as JSON, `--options` the reference of the modules' options, and nothing else.
set -eu
cd "$(dirname "$0")/.."
# As root there are no build users, and nothing is built.
export NIX_CONFIG="build-users-group ="

install_nix() {
    command -v nix-instantiate >/dev/null && return
    command -v apt-get >/dev/null || {
        echo "nix-instantiate is not there: install Nix" >&2
        exit 1
    }
    root=""
    [ "$(id -u)" = 0 ] || root=sudo
    $root env DEBIAN_FRONTEND=noninteractive apt-get -o DPkg::Lock::Timeout=300 \
        install -y -q --no-install-recommends nix-bin >&2
}

# The registry's `statix` is another program; these two are what they say.
install_tools() {
    for tool in deadnix nixpkgs-fmt; do
        command -v "$tool" >/dev/null || cargo install --quiet --locked "$tool" >&2
    done
}

install_nix
if [ "${1:-}" = --data ]; then
    exec nix-instantiate --eval --strict --json -E 'import ./nixos-modules/data.nix'
fi
if [ "${1:-}" = --options ]; then
    # As JSON, which `nix-instantiate` of every age can print, and back to text.
    nix-instantiate --eval --strict --json -E 'import ./nix/options.nix' |
        python3 -c 'import json, sys; sys.stdout.write(json.load(sys.stdin))'
    exit
fi
install_tools
sources="flake.nix nix nixos-modules examples tests/nixos"
# shellcheck disable=SC2086 # a list of paths without blanks
find $sources -name '*.nix' | while read -r file; do
    nix-instantiate --parse "$file" >/dev/null
done
# shellcheck disable=SC2086
deadnix --fail $sources
# shellcheck disable=SC2086
nixpkgs-fmt --check $sources
