{
  description = "Backend.AI: compute sessions in containers, through an API";

  inputs.nixpkgs.url = "github:NixOS/nixpkgs/nixos-26.05";

  outputs =
    { self, nixpkgs }:
    let
      inherit (nixpkgs) lib;
      forEachSystem = f: lib.genAttrs [ "x86_64-linux" "aarch64-linux" ] f;
      pkgsFor = system: nixpkgs.legacyPackages.${system}.extend self.overlays.default;
      modules = [ self.nixosModules.default ];
      host = file: lib.nixosSystem { modules = modules ++ [ file ]; };
    in
    {
      overlays.default = import ./nix/overlay.nix;

      # The parts ask one another what the host does, so each name brings all of them; nothing
      # happens on a host until one is enabled.
      nixosModules = lib.genAttrs [
        "manager"
        "agent"
        "watcher"
        "halfstack"
        "appliance"
        "tuning"
        "default"
      ]
        (_: { imports = [ ./nixos-modules ]; });

      nixosConfigurations = {
        single = host ./examples/single.nix;
        manager = host ./examples/manager.nix;
        agent = host ./examples/agent.nix;
      };

      packages = forEachSystem (
        system:
        let
          packages = import ./nix/packages.nix { pkgs = pkgsFor system; };
        in
        packages
        // import ./nix/images.nix { inherit nixpkgs modules system; }
        // {
          default = packages.backendai;
        }
      );

      devShells = forEachSystem (system: {
        default = import ./nix/devshell.nix { pkgs = pkgsFor system; };
      });

      apps = forEachSystem (system: import ./nix/apps.nix { pkgs = pkgsFor system; });

      checks = forEachSystem (
        system:
        import ./nix/checks.nix {
          inherit nixpkgs modules system;
          pkgs = pkgsFor system;
        }
      );

      # Not among the checks: they want KVM.
      legacyPackages = forEachSystem (system: {
        vmTests = import ./nix/vm-tests.nix {
          inherit modules;
          pkgs = pkgsFor system;
        };
      });

      formatter = forEachSystem (system: (pkgsFor system).nixpkgs-fmt);
    };
}
