# The manager: configuration, migrations, service, firewall, and on request its database.
{ config
, lib
, pkgs
, ...
}:
let
  cfg = config.services.backendai.manager;
  inherit (config.services.backendai) agent;
  helpers = import ./helpers.nix { inherit lib pkgs; };
  inherit (helpers) data format;
  inherit (lib) mkOption types literalExpression;
  user = data.users.service;
  settings = helpers.withoutNulls cfg.settings;
  option = "services.backendai.manager";
  credentials = lib.optional (cfg.dbPasswordFile != null) "db-password:${cfg.dbPasswordFile}";
  secrets = {
    serviceConfig = {
      LoadCredential = lib.mkIf (credentials != [ ]) credentials;
      EnvironmentFile = lib.mkIf (cfg.environmentFile != null) [ cfg.environmentFile ];
    };
    # Same place for both units, which %d gives as their own folder.
    environment = lib.mkIf (cfg.dbPasswordFile != null) {
      BACKENDAI_MANAGER__DB__PASSWORD_FILE = "%d/db-password";
    };
    restartTriggers = [ cfg.configFile ];
  };
  site = lib.filterAttrs (_: value: value != { }) cfg.site;
  siteFile = pkgs.runCommand "site.json" { } ''
    cp ${pkgs.writeText "declared.json" (builtins.toJSON site)} site.json
    ${cfg.package}/bin/backendai-manager site check site.json
    cp site.json $out
  '';
  # A name that is not declared, where any of its kind are, is a slip.
  among = kind: declared: who: name: {
    assertion = declared == { } || declared ? ${name};
    message = "${option}.site.${who}: there is no ${kind} \"${name}\"; declare it in ${option}.site, or use one of ${lib.concatStringsSep ", " (lib.attrNames declared)}.";
  };
  references =
    lib.concatLists
      (
        lib.mapAttrsToList
          (
            name: group: map (among "domain" cfg.site.domains "scaling-groups.${name}.domains") (group.domains or [ ])
          )
          cfg.site.scaling-groups
      )
    ++ lib.concatLists (
      lib.mapAttrsToList
        (
          name: project:
            map (among "scaling group" cfg.site.scaling-groups "projects.${name}.scaling-groups")
              (
                project.scaling-groups or [ ]
              )
            ++ [ (among "domain" cfg.site.domains "projects.${name}.domain" (project.domain or "default")) ]
        )
        cfg.site.projects
    )
    ++ lib.concatLists (
      lib.mapAttrsToList
        (
          email: user:
            map (among "project" cfg.site.projects "users.\"${email}\".projects") (user.projects or [ ])
            ++ [ (among "domain" cfg.site.domains "users.\"${email}\".domain" (user.domain or "default")) ]
            ++ map
              (secret: helpers.secretOutsideStore "${option}.site.users.\"${email}\".${secret}" (user.${secret} or null))
              [ "password-file" "secret-key-file" ]
        )
        cfg.site.users
    );
  part =
    what: example:
    mkOption {
      type = types.attrsOf (types.attrsOf types.anything);
      default = { };
      inherit example;
      description = "${what}, by name. Columns of the table may be given too; what is not named is left alone.";
    };
  database = lib.mkIf cfg.database.createLocally {
    after = [ "postgresql.target" ];
    requires = [ "postgresql.target" ];
  };
in
{
  options.services.backendai.manager = {
    enable = lib.mkEnableOption "the Backend.AI manager";

    package = mkOption {
      type = types.package;
      default =
        pkgs.backendai-manager or (import ../nix/packages.nix { inherit pkgs; }).backendai-manager;
      defaultText = literalExpression "pkgs.backendai-manager";
      description = "The package with the manager.";
    };

    settings = mkOption {
      description = "The content of `manager.toml`; `docs/config/manager.toml` has every key.";
      default = { };
      type = types.submodule {
        freeformType = format.type;
        options = {
          etcd.namespace = mkOption {
            type = types.str;
            default = "local";
            description = "Names the cluster: clusters that share an etcd have different ones.";
          };
          etcd.addr = mkOption {
            type = types.str;
            default = "127.0.0.1:2379";
            description = "Address of etcd, `host:port`.";
          };
          db.addr = mkOption {
            type = types.str;
            default = "127.0.0.1:5432";
            description = "Address of PostgreSQL, `host:port`; a folder stands for the unix socket in it.";
          };
          db.name = mkOption {
            type = types.str;
            default = "backendai";
            description = "The database.";
          };
          db.user = mkOption {
            type = types.str;
            default = "backendai";
            description = "The database's user.";
          };
          manager.service-addr = mkOption {
            type = types.str;
            default = "0.0.0.0:8080";
            example = "0.0.0.0:80";
            description = "Where the API listens.";
          };
          manager.event-listen-addr = mkOption {
            type = types.str;
            default = "0.0.0.0:${toString data.ports.manager.events}";
            description = "Where agents bring their events.";
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
        name = "manager.toml";
        inherit settings;
        programs = [ "${cfg.package}/bin/backendai-manager" ];
      };
      defaultText = literalExpression "settings as TOML, checked by backendai-manager config check";
      description = "The configuration file that the settings make.";
    };

    dbPasswordFile = mkOption {
      type = types.nullOr types.str;
      default = null;
      example = "/run/secrets/backendai-db";
      description = "File with the database's password, readable by root. Not needed with `database.createLocally`.";
    };

    environmentFile = mkOption {
      type = types.nullOr types.str;
      default = null;
      example = "/run/secrets/backendai-manager.env";
      description = "File with variables such as `BACKEND_ETCD_PASSWORD`, the last layer of the configuration.";
    };

    database.createLocally = mkOption {
      type = types.bool;
      default = false;
      description = "Whether to run PostgreSQL on this host, with the manager's database and user, reached by its unix socket.";
    };

    site = {
      etcd = mkOption {
        type = types.attrsOf types.str;
        default = { };
        example = { "config/redis/addr" = "127.0.0.1:6379"; };
        description = "Keys of the shared configuration and their values.";
      };
      domains = part "Domains" { default = { }; };
      user-resource-policies = part "Resource policies of users" { default.max-vfolder-size = -1; };
      project-resource-policies = part "Resource policies of projects" { default.max-vfolder-size = -1; };
      keypair-resource-policies = part "Resource policies of API keys" {
        default = {
          max-concurrent-sessions = 5;
          max-containers-per-session = 1;
        };
      };
      scaling-groups = part "Scaling groups, with the `domains` that may use them" {
        default.domains = [ "default" ];
      };
      projects = part "Projects, with their `domain` and further `scaling-groups`" {
        research.scaling-groups = [ "gpu" ];
      };
      users = part "Users by e-mail address, with `projects`, `role`, `password-file`, `access-key` and `secret-key-file`; the files are read by the user backendai" {
        "someone@example.org" = {
          projects = [ "research" ];
          password-file = "/run/secrets/someone";
        };
      };
      images = part "Images by their full name, with what `image rescan` does not know" {
        "registry/python:3.12".type = "compute";
      };
    };

    openFirewall = mkOption {
      type = types.bool;
      default = false;
      description = "Whether to open the ports of the API (also 80 and 443, for a proxy) and of agents' events.";
    };
  };

  config = lib.mkIf cfg.enable {
    assertions = helpers.unknownSettings "${option}.settings" ../docs/config/manager.toml settings ++ references ++ [
      (helpers.secretOutsideStore "${option}.dbPasswordFile" cfg.dbPasswordFile)
      (helpers.secretOutsideStore "${option}.environmentFile" cfg.environmentFile)
      (helpers.secretNotInSettings "${option}.settings.db.password" "Use ${option}.dbPasswordFile."
        (settings.db.password or null))
      (helpers.secretNotInSettings "${option}.settings.etcd.password"
        "Put BACKEND_ETCD_PASSWORD=… into the file of ${option}.environmentFile."
        (settings.etcd.password or null))
      {
        # An agent on this host must belong to a scaling group that there is.
        assertion =
          !agent.enable
            || cfg.site.scaling-groups == { }
            || cfg.site.scaling-groups ? ${agent.settings.agent.scaling-group};
        message = "services.backendai.agent.settings.agent.scaling-group: there is no scaling group \"${agent.settings.agent.scaling-group}\"; declare it in ${option}.site.scaling-groups, or use one of ${lib.concatStringsSep ", " (lib.attrNames cfg.site.scaling-groups)}.";
      }
      {
        assertion =
          helpers.portOf settings.manager.service-addr
            != helpers.portOf settings.manager.event-listen-addr;
        message = "${option}.settings.manager: service-addr and event-listen-addr have the same port; give each its own.";
      }
    ];

    services.backendai.manager.settings.db.addr = lib.mkIf cfg.database.createLocally (
      lib.mkDefault "/run/postgresql:${toString config.services.postgresql.settings.port}"
    );

    systemd.services.backendai-manager-site = lib.mkIf (site != { }) (
      lib.mkMerge [
        (helpers.unit "backendai-manager-migrate" cfg.package)
        secrets
        database
        {
          description = lib.mkForce "Backend.AI manager: what the site is declared to have";
          wantedBy = [ "multi-user.target" ];
          after = [ "backendai-manager-migrate.service" ];
          requires = [ "backendai-manager-migrate.service" ];
          serviceConfig.ExecStart = "${cfg.package}/bin/backendai-manager --config ${data.paths.config}/manager.toml site apply ${siteFile}";
          restartTriggers = [ siteFile ];
        }
      ]
    );

    environment.etc."backend.ai/manager.toml".source = cfg.configFile;
    environment.systemPackages = [ cfg.package ];

    users.users.${user} = {
      isSystemUser = true;
      group = user;
      home = data.paths.state;
      description = "Backend.AI";
    };
    users.groups.${user} = { };

    systemd.services.backendai-manager-migrate = lib.mkMerge [
      (helpers.unit "backendai-manager-migrate" cfg.package)
      secrets
      database
    ];
    systemd.services.backendai-manager = lib.mkMerge [
      (helpers.unit "backendai-manager" cfg.package)
      secrets
      database
    ];

    services.postgresql = lib.mkIf cfg.database.createLocally {
      enable = true;
      ensureDatabases = [ "backendai" ];
      ensureUsers = [
        {
          name = "backendai";
          ensureDBOwnership = true;
        }
      ];
    };

    networking.firewall.allowedTCPPorts = lib.mkIf cfg.openFirewall (
      data.ports.manager.api
      ++ [
        (helpers.portOf settings.manager.service-addr)
        (helpers.portOf settings.manager.event-listen-addr)
      ]
    );
  };
}
