# The tests with virtual machines: `nix build .#vmTests.<system>.<name>`.
{ pkgs
, modules
,
}:
let
  inherit (pkgs) lib;
  names = map (lib.removeSuffix ".nix") (
    lib.filter (file: lib.hasSuffix ".nix" file && file != "common.nix") (
      lib.attrNames (builtins.readDir ../tests/nixos)
    )
  );
in
lib.genAttrs names (
  name:
  pkgs.testers.runNixOSTest (
    import (../tests/nixos + "/${name}.nix") { inherit pkgs modules; }
  )
)
