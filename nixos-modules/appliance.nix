# A whole cluster on one host, for images that run as they are.
{ config
, lib
, ...
}:
let
  cfg = config.services.backendai.appliance;
in
{
  options.services.backendai.appliance.enable =
    lib.mkEnableOption "a whole Backend.AI cluster on this host: manager, agent and the servers they need";

  config = lib.mkIf cfg.enable {
    services.backendai = {
      manager.enable = lib.mkDefault true;
      manager.openFirewall = lib.mkDefault true;
      agent.enable = lib.mkDefault true;
      halfstack.enable = lib.mkDefault true;
      # The manager of this host is the only one that calls.
      agent.settings.agent.rpc-listen-addr = lib.mkDefault "127.0.0.1:6001";
    };
  };
}
