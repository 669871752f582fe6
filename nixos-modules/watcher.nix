# The watcher beside the agent.
{ config
, lib
, pkgs
, ...
}:
let
  cfg = config.services.backendai.watcher;
  inherit (config.services.backendai) agent;
  helpers = import ./helpers.nix { inherit lib pkgs; };
  inherit (lib) mkOption types literalExpression;
in
{
  options.services.backendai.watcher = {
    enable = lib.mkEnableOption "the Backend.AI watcher, which starts and stops the agent's service for managers";

    package = mkOption {
      type = types.package;
      default =
        pkgs.backendai-watcher or (import ../nix/packages.nix { inherit pkgs; }).backendai-watcher;
      defaultText = literalExpression "pkgs.backendai-watcher";
      description = "The package with the watcher.";
    };

    openFirewall = mkOption {
      type = types.bool;
      default = false;
      description = "Whether to open the watcher's port, for managers.";
    };
  };

  config = lib.mkIf cfg.enable {
    assertions = [
      {
        assertion = agent.enable;
        message = "services.backendai.watcher: it watches the agent of its own host; set services.backendai.agent.enable, or leave the watcher out.";
      }
    ];

    environment.systemPackages = [ cfg.package ];

    systemd.services.backendai-watcher = lib.mkMerge [
      (helpers.unit "backendai-watcher" cfg.package)
      {
        # mount and umount.
        path = [ pkgs.util-linux ];
        serviceConfig.EnvironmentFile = lib.mkIf (agent.environmentFile != null) [ agent.environmentFile ];
        restartTriggers = [ agent.configFile ];
      }
    ];

    networking.firewall.allowedTCPPorts = lib.mkIf cfg.openFirewall [
      (helpers.portOf agent.settings.watcher.service-addr)
    ];
  };
}
