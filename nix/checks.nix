# Two tiers. `evaluation` holds anywhere: sources, examples that must evaluate, examples that
# must not. `vm` starts virtual machines, and wants KVM.
{ nixpkgs
, pkgs
, modules
, system
,
}:
let
  inherit (pkgs) lib;
  evaluate =
    file:
    nixpkgs.lib.nixosSystem {
      modules = modules ++ [
        file
        { nixpkgs.hostPlatform = system; }
      ];
    };
  failures = file: map (a: a.message) (lib.filter (a: !a.assertion) (evaluate file).config.assertions);

  example =
    name: file:
    let
      host = evaluate file;
      wrong = failures file;
    in
    if wrong != [ ] then
      throw "examples/${name}.nix: ${lib.concatStringsSep "; " wrong}"
    else
    # Building the file runs the daemons' own checks.
      pkgs.runCommand "example-${name}"
        {
          files = lib.optional host.config.services.backendai.manager.enable host.config.services.backendai.manager.configFile
            ++ lib.optional host.config.services.backendai.agent.enable host.config.services.backendai.agent.configFile;
        } "cat $files > $out";

  # Each wrong example says in its first comment what the message must contain.
  wrong =
    name: file:
    let
      wanted = builtins.head (builtins.match "# fails: ([^\n]*)\n.*" (builtins.readFile file));
      told = lib.concatStringsSep "\n" (failures file);
    in
    if lib.hasInfix wanted told then
      pkgs.runCommand "wrong-${name}" { } "echo ok > $out"
    else
      throw "examples/wrong/${name}.nix should fail with \"${wanted}\" and says: ${told}";

  nixFiles =
    folder:
    lib.mapAttrs' (file: _: lib.nameValuePair (lib.removeSuffix ".nix" file) (folder + "/${file}")) (
      lib.filterAttrs (file: type: type == "regular" && lib.hasSuffix ".nix" file) (builtins.readDir folder)
    );
  named = prefix: lib.mapAttrs' (name: lib.nameValuePair "${prefix}-${name}");
in
named "example" (lib.mapAttrs example (nixFiles ../examples))
// named "wrong" (lib.mapAttrs wrong (nixFiles ../examples/wrong))
  // {
  sources = pkgs.runCommand "nix-sources" { } ''
    ${pkgs.deadnix}/bin/deadnix --fail ${../nix} ${../nixos-modules} ${../examples} ${../tests/nixos}
    ${pkgs.nixpkgs-fmt}/bin/nixpkgs-fmt --check ${../nix} ${../nixos-modules} ${../examples} ${../tests/nixos}
    echo ok > $out
  '';
}
