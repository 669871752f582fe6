{
  description = "Backend.AI: compute sessions in containers, through an API";

  inputs.nixpkgs.url = "github:NixOS/nixpkgs/nixos-26.05";

  outputs =
    { nixpkgs, ... }:
    let
      forEachSystem =
        f:
        nixpkgs.lib.genAttrs [ "x86_64-linux" "aarch64-linux" ] (
          system: f nixpkgs.legacyPackages.${system}
        );
    in
    {
      devShells = forEachSystem (pkgs: {
        default = import ./nix/devshell.nix { inherit pkgs; };
      });
      formatter = forEachSystem (pkgs: pkgs.nixfmt-tree);
    };
}
