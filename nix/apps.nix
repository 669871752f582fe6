# `nix run .#demo` and `nix run .#test`: the same script as without Nix, with its programs.
{ pkgs }:
let
  run =
    verb: description:
    let
      program = pkgs.writeShellScript "backendai-${verb}" ''
        [ -x ./halfstack ] || { echo "run this in a checkout of the repository" >&2; exit 1; }
        exec nix develop --command ./halfstack ${verb} "$@"
      '';
    in
    {
      type = "app";
      program = toString program;
      meta = { inherit description; };
    };
in
{
  demo = run "demo" "Runs a program in a container through the API, on servers of its own";
  test = run "test" "Runs every test, as CI does";
}
