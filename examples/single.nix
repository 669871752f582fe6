# One host that is a whole cluster.
{
  networking.hostName = "backendai";
  services.backendai = {
    manager.enable = true;
    manager.openFirewall = true;
    agent.enable = true;
    # The manager on this host is the only caller.
    agent.settings.agent.rpc-listen-addr = "127.0.0.1:6001";
    agent.settings.watcher.service-addr = "127.0.0.1:6009";
    watcher.enable = true;
    halfstack.enable = true;

    # What the site has, made at the first start and kept as it is here.
    manager.site = {
      domains.default = { };
      user-resource-policies.default.max-vfolder-size = -1;
      project-resource-policies.default.max-vfolder-size = -1;
      keypair-resource-policies.default = {
        max-concurrent-sessions = 5;
        max-containers-per-session = 1;
      };
      scaling-groups.default.domains = [ "default" ];
      projects.default = { };
      users."someone@example.org" = {
        projects = [ "default" ];
        password-file = "/var/lib/secrets/someone-password";
        access-key = "AKIASOMEONEEXAMPLE00";
        secret-key-file = "/var/lib/secrets/someone-secret-key";
      };
    };
  };

  nixpkgs.hostPlatform = "x86_64-linux";
  fileSystems."/".device = "/dev/disk/by-label/nixos";
  boot.loader.grub.device = "/dev/vda";
  system.stateVersion = "26.05";
}
