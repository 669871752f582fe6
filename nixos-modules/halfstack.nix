# What a cluster needs besides its daemons, on this host: PostgreSQL, Redis, etcd, a registry.
{ config
, lib
, ...
}:
let
  cfg = config.services.backendai.halfstack;
  inherit (config.services.backendai) manager;
  inherit (lib) mkOption types;
  part =
    what:
    mkOption {
      type = types.bool;
      default = cfg.enable;
      defaultText = lib.literalExpression "config.services.backendai.halfstack.enable";
      description = "Whether to run ${what} on this host.";
    };
  data = import ./data.nix;
in
{
  options.services.backendai.halfstack = {
    enable = lib.mkEnableOption "PostgreSQL, Redis, etcd and an image registry for Backend.AI on this host, reachable from it alone";
    postgresql = part "PostgreSQL with the manager's database";
    redis = part "Redis";
    etcd = part "etcd";
    registry = part "an image registry, on port 5000";
  };

  config = lib.mkMerge [
    (lib.mkIf cfg.postgresql {
      services.backendai.manager.database.createLocally = lib.mkDefault manager.enable;
    })
    (lib.mkIf cfg.redis {
      # Only what may vanish is in it, so nothing is saved.
      services.redis.servers.backendai = {
        enable = true;
        port = data.reach.manager.redis;
        save = [ ];
      };
    })
    (lib.mkIf cfg.etcd { services.etcd.enable = true; })
    (lib.mkIf cfg.registry { services.dockerRegistry.enable = true; })
    (lib.mkIf (cfg.etcd && manager.enable) {
      systemd.services.backendai-manager = {
        after = [ "etcd.service" ];
        wants = [ "etcd.service" ];
      };
    })
    (lib.mkIf (cfg.redis && cfg.etcd && manager.enable) {
      # Daemons find Redis by its entry in etcd. Written only where there is none, so that an
      # operator's own entry stays.
      systemd.services.backendai-halfstack = {
        description = "Backend.AI: the address of Redis in etcd";
        wantedBy = [ "multi-user.target" ];
        after = [ "etcd.service" ];
        requires = [ "etcd.service" ];
        before = [ "backendai-manager.service" ];
        script = ''
          cli="${manager.package}/bin/backendai-manager --config ${data.paths.config}/manager.toml"
          $cli etcd get config/redis/addr >/dev/null 2>&1 ||
            $cli etcd put config/redis/addr 127.0.0.1:${toString data.reach.manager.redis}
        '';
        serviceConfig = {
          Type = "oneshot";
          RemainAfterExit = true;
          DynamicUser = true;
          Restart = "on-failure";
          RestartSec = 5;
        };
      };
    })
  ];
}
