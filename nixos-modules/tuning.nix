# Kernel, limits and modules of hosts, defined once: with manager and agent on one host each
# key has still a single definition, which a host may override without force.
{ config
, lib
, pkgs
, ...
}:
let
  inherit (config.services.backendai) manager agent tuning;
  helpers = import ./helpers.nix { inherit lib pkgs; };
  inherit (helpers) data;
  role =
    if manager.enable && agent.enable then
      data.roles.both
    else if agent.enable then
      data.roles.agent
    else
      data.roles.manager;
  finalRange = config.boot.kernel.sysctl."net.ipv4.ip_local_port_range" or null;
  bounds = map lib.toInt (
    lib.filter (part: builtins.isString part && part != "") (builtins.split "[ \t]+" (toString finalRange))
  );
  pool = agent.settings.container.port-range;
  first = builtins.elemAt pool 0;
  last = builtins.elemAt pool 1;
in
{
  options.services.backendai.tuning.enable = lib.mkOption {
    type = lib.types.bool;
    default = true;
    description = ''
      Whether to set kernel parameters, limits and modules of hosts that run the manager or the
      agent. `cgroup_enable=memory` and `swapaccount=1` change nothing on kernels with cgroup v2.
    '';
  };

  config = lib.mkMerge [
    (lib.mkIf (tuning.enable && (manager.enable || agent.enable)) {
      # Stronger than the defaults of NixOS, weaker than what a host says.
      boot.kernel.sysctl = lib.mapAttrs (_: lib.mkOverride 900) role.sysctl;
      boot.kernelParams = role.params;
      boot.kernelModules = role.modules;
      security.pam.loginLimits = lib.concatMap
        (
          domain:
          lib.concatMap
            (
              type: lib.mapAttrsToList (item: value: { inherit domain type item value; }) data.limits
            ) [ "hard" "soft" ]
        ) [ "root" data.users.service ];
    })
    (lib.mkIf agent.enable {
      assertions = [
        {
          assertion =
            finalRange == null
            || builtins.elemAt bounds 1 < first
            || builtins.elemAt bounds 0 > last;
          message = "boot.kernel.sysctl.\"net.ipv4.ip_local_port_range\" is \"${toString finalRange}\" and meets services.backendai.agent.settings.container.port-range ${toString first}-${toString last}: outgoing connections would take ports of containers. Begin the range above ${toString last}, as \"40000 65000\" does, or move the pool.";
        }
      ];
    })
  ];
}
