# A host that runs sessions for a manager elsewhere.
{
  networking.hostName = "agent1";
  services.backendai = {
    agent = {
      enable = true;
      openFirewall = true;
      settings.etcd.namespace = "site";
      settings.etcd.addr = "10.0.0.1:2379";
      settings.agent.scaling-group = "default";
      settings.resource.reserved-cpu = 2;
    };
    watcher.enable = true;
    watcher.openFirewall = true;
  };
  # One key of the tuning, set otherwise without force.
  boot.kernel.sysctl."fs.inotify.max_user_watches" = 1048576;

  nixpkgs.hostPlatform = "x86_64-linux";
  fileSystems."/".device = "/dev/disk/by-label/nixos";
  boot.loader.grub.device = "/dev/vda";
  system.stateVersion = "26.05";
}
