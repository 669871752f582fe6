# The appliance as something to start: a virtual machine, an installation medium, a container.
{ nixpkgs
, modules
, system
,
}:
let
  inherit (nixpkgs) lib;
  host =
    extra:
    lib.nixosSystem {
      modules = modules ++ [
        (
          { ... }:
          {
            nixpkgs.hostPlatform = system;
            networking.hostName = "backendai";
            services.backendai.appliance.enable = true;
            system.stateVersion = "26.05";
          }
        )
        extra
      ];
    };
  machine = host { virtualisation.vmVariant.virtualisation.memorySize = 4096; };
in
{
  appliance-vm = machine.config.system.build.vm;
  appliance-qemu = machine.config.system.build.images.qemu;
  appliance-iso = machine.config.system.build.images.iso;
  # Of the host's own kernel; kernel settings are then the host's affair.
  appliance-container =
    (host {
      boot.isContainer = true;
      services.backendai.tuning.enable = false;
    }).config.system.build.toplevel;
}
