# The manager's host of a cluster, with the servers that all hosts use.
{
  networking.hostName = "manager";
  services.backendai = {
    manager = {
      enable = true;
      openFirewall = true;
      database.createLocally = true;
      settings.etcd.namespace = "site";
      settings.manager.service-addr = "0.0.0.0:80";
      settings.db.pool-size = 32;
    };
    halfstack.redis = true;
    halfstack.etcd = true;
  };
  # Agents reach etcd and Redis on the inner network alone; nothing else is opened.
  services.etcd.listenClientUrls = [ "http://127.0.0.1:2379" "http://10.0.0.1:2379" ];
  services.redis.servers.backendai.bind = "127.0.0.1 10.0.0.1";
  networking.firewall.interfaces.inner.allowedTCPPorts = [ 2379 6379 ];

  nixpkgs.hostPlatform = "x86_64-linux";
  fileSystems."/".device = "/dev/disk/by-label/nixos";
  boot.loader.grub.device = "/dev/vda";
  system.stateVersion = "26.05";
}
