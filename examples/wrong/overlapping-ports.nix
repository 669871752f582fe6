# fails: Begin the range above 31000
{
  services.backendai.agent.enable = true;
  boot.kernel.sysctl."net.ipv4.ip_local_port_range" = "10000 65000";
}
