# A manager and two agents on hosts of their own.
{ pkgs, modules }:
let
  common = import ./common.nix { inherit pkgs modules; };
  agent = common.host {
    services.backendai.agent = {
      enable = true;
      openFirewall = true;
      settings.etcd.namespace = "site";
      settings.etcd.addr = "manager:2379";
    };
    services.backendai.watcher.enable = true;
  };
in
{
  name = "backendai-cluster";
  nodes = {
    manager = common.host {
      services.backendai = {
        manager.enable = true;
        manager.openFirewall = true;
        manager.settings.etcd.namespace = "site";
        halfstack.enable = true;
      };
      services.etcd.listenClientUrls = pkgs.lib.mkForce [ "http://0.0.0.0:2379" ];
      networking.firewall.allowedTCPPorts = [ 2379 ];
    };
    agent1 = agent;
    agent2 = agent;
  };
  testScript = ''
    ${common.prelude}
    start_all()
    set_up(manager)
    for host in (agent1, agent2):
        host.wait_for_unit("backendai-agent.service")
    is_alive(manager, "i-agent1")
    is_alive(manager, "i-agent2")

    with subtest("an agent that stops is missed, and the other is not"):
        agent2.succeed("systemctl stop backendai-agent.service")
        query = "SELECT count(*) FROM agents WHERE status = 'ALIVE'"
        manager.wait_until_succeeds(f"sudo -u backendai psql -tA backendai -c \"{query}\" | grep -x 1")
  '';
}
