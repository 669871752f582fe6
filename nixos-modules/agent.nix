# The agent: configuration, service, Docker, firewall.
{ config
, lib
, pkgs
, ...
}:
let
  cfg = config.services.backendai.agent;
  inherit (config.services.backendai) watcher;
  helpers = import ./helpers.nix { inherit lib pkgs; };
  inherit (helpers) data format;
  inherit (lib) mkOption types literalExpression;
  settings = helpers.withoutNulls cfg.settings;
  option = "services.backendai.agent";
  ownPackages = import ../nix/packages.nix { inherit pkgs; };
  pool = settings.container.port-range;
  isInPool = port: port >= builtins.elemAt pool 0 && port <= builtins.elemAt pool 1;
  rpcPort = helpers.portOf settings.agent.rpc-listen-addr;
  watcherPort = helpers.portOf settings.watcher.service-addr;
in
{
  options.services.backendai.agent = {
    enable = lib.mkEnableOption "the Backend.AI agent";

    package = mkOption {
      type = types.package;
      default = pkgs.backendai-agent or ownPackages.backendai-agent;
      defaultText = literalExpression "pkgs.backendai-agent";
      description = "The package with the agent.";
    };

    kernelRunner = mkOption {
      type = types.package;
      default = pkgs.backendai-kernel-runner or ownPackages.backendai-kernel-runner;
      defaultText = literalExpression "pkgs.backendai-kernel-runner";
      description = "The package with the static kernel runner, which every container mounts.";
    };

    settings = mkOption {
      description = "The content of `agent.toml`, which the watcher reads too; `docs/config/agent.toml` has every key.";
      default = { };
      type = types.submodule {
        freeformType = format.type;
        options = {
          etcd.namespace = mkOption {
            type = types.str;
            default = "local";
            description = "Names the cluster, as the manager's settings do.";
          };
          etcd.addr = mkOption {
            type = types.str;
            default = "127.0.0.1:2379";
            description = "Address of etcd, `host:port`.";
          };
          agent.backend = mkOption {
            type = types.enum [ "docker" "dummy" ];
            default = "docker";
            description = "Which container engine runs kernels; `dummy` is for simulations.";
          };
          agent.id = mkOption {
            type = types.nullOr types.str;
            default = null;
            example = "i-gpu01";
            description = "The agent's id; `i-<hostname>` if null.";
          };
          agent.rpc-listen-addr = mkOption {
            type = types.str;
            default = ":${toString data.ports.agent.rpc}";
            description = "Where managers call; an empty host is the address by which etcd is reached.";
          };
          agent.scaling-group = mkOption {
            type = types.str;
            default = "default";
            description = "The scaling group the agent belongs to.";
          };
          agent.ipc-base-path = mkOption {
            type = types.str;
            default = "/run/backend.ai/ipc";
            description = "Folder of the kernel runners' sockets.";
          };
          agent.var-base-path = mkOption {
            type = types.str;
            default = "${data.paths.state}/agent";
            description = "Folder of what must survive a restart.";
          };
          agent.image-commit-path = mkOption {
            type = types.str;
            default = "${data.paths.state}/agent/commit";
            description = "Folder of the archives that committed sessions become.";
          };
          container.scratch-type = mkOption {
            type = types.enum [ "hostdir" "hostfile" "memory" ];
            default = "hostdir";
            description = "What the kernels' folders lie on.";
          };
          container.scratch-root = mkOption {
            type = types.str;
            default = data.paths.scratches;
            description = "Folder of the kernels' files.";
          };
          container.port-range = mkOption {
            type = types.addCheck (types.listOf types.port) (range: builtins.length range == 2);
            default = data.ports.agent.pool;
            description = "First and last port of streams into containers; must not meet the host's ip_local_port_range.";
          };
          container.runner-path = mkOption {
            type = types.str;
            default = "${cfg.kernelRunner}/bin/backendai-kernel-runner";
            defaultText = literalExpression ''"''${kernelRunner}/bin/backendai-kernel-runner"'';
            description = "The kernel runner's binary on this host.";
          };
          watcher.service-addr = mkOption {
            type = types.str;
            default = "0.0.0.0:${toString data.ports.agent.watcher}";
            description = "Where managers reach the watcher.";
          };
          logging.level = mkOption {
            type = types.str;
            default = "INFO";
            description = "CRITICAL, ERROR, WARNING, INFO, DEBUG, or a filter.";
          };
        };
      };
    };

    configFile = mkOption {
      type = types.path;
      readOnly = true;
      default = helpers.checked {
        name = "agent.toml";
        inherit settings;
        programs = [
          "${cfg.package}/bin/backendai-agent"
        ]
        ++ lib.optional watcher.enable "${watcher.package}/bin/backendai-watcher";
      };
      defaultText = literalExpression "settings as TOML, checked by backendai-agent config check";
      description = "The configuration file that the settings make.";
    };

    environmentFile = mkOption {
      type = types.nullOr types.str;
      default = null;
      example = "/run/secrets/backendai-agent.env";
      description = "File with variables such as `BACKEND_ETCD_PASSWORD`, the last layer of the configuration.";
    };

    openFirewall = mkOption {
      type = types.bool;
      default = false;
      description = "Whether to open the ports of the agent's RPC and of streams into containers.";
    };
  };

  config = lib.mkIf cfg.enable {
    assertions = helpers.unknownSettings "${option}.settings" ../docs/config/agent.toml settings ++ [
      (helpers.secretOutsideStore "${option}.environmentFile" cfg.environmentFile)
      (helpers.secretNotInSettings "${option}.settings.etcd.password"
        "Put BACKEND_ETCD_PASSWORD=… into the file of ${option}.environmentFile."
        (settings.etcd.password or null))
      {
        assertion = builtins.elemAt pool 0 < builtins.elemAt pool 1;
        message = "${option}.settings.container.port-range: the first port must be below the last.";
      }
      {
        assertion = !(isInPool rpcPort) && !(isInPool watcherPort) && rpcPort != watcherPort;
        message = "${option}.settings: agent.rpc-listen-addr (${toString rpcPort}) and watcher.service-addr (${toString watcherPort}) must be different ports outside container.port-range (${toString pool}).";
      }
    ];

    environment.etc."backend.ai/agent.toml".source = cfg.configFile;
    environment.systemPackages = [ cfg.package ];
    virtualisation.docker.enable = lib.mkIf (settings.agent.backend == "docker") true;

    systemd.services.backendai-agent = lib.mkMerge [
      (helpers.unit "backendai-agent" cfg.package)
      {
        # What it runs for scratch volumes and the metadata service.
        path = [
          pkgs.iptables
          pkgs.util-linux
          pkgs.kmod
        ]
        ++ lib.optional (pkgs ? e2fsprogs) pkgs.e2fsprogs;
        serviceConfig.EnvironmentFile = lib.mkIf (cfg.environmentFile != null) [ cfg.environmentFile ];
        restartTriggers = [ cfg.configFile ];
      }
    ];

    # The unit makes the default folder; another one is made here.
    systemd.tmpfiles.settings."10-backendai".${settings.container.scratch-root}.d = {
      user = "root";
      group = "root";
      mode = "0755";
    };

    networking.firewall = lib.mkIf cfg.openFirewall {
      allowedTCPPorts = [ rpcPort ];
      allowedTCPPortRanges = [
        {
          from = builtins.elemAt pool 0;
          to = builtins.elemAt pool 1;
        }
      ];
    };
  };
}
