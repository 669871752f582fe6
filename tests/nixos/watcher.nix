# The watcher restarts the agent, and containers live on.
{ pkgs, modules }:
let
  common = import ./common.nix { inherit pkgs modules; };
in
{
  name = "backendai-watcher";
  nodes.machine = common.host ../../examples/single.nix;
  testScript = ''
    ${common.prelude}
    machine.start()
    set_up(machine)
    machine.succeed("docker load --input=${common.kernelImage}")
    machine.wait_for_unit("backendai-watcher.service")
    machine.wait_for_open_port(6009)
    machine.succeed("docker run -d --name lives ${common.kernelImage.imageName}:${common.kernelImage.imageTag} sleep 600")

    with subtest("without the token nothing is told"):
        status = machine.succeed("curl -sS -o /dev/null -w '%{http_code}' http://127.0.0.1:6009/")
        assert status == "403", status

    with subtest("restart, stop and start"):
        before = machine.succeed("systemctl show -P MainPID backendai-agent").strip()
        assert "ok" in watcher(machine, "POST", "/agent/restart")
        assert machine.succeed("systemctl show -P MainPID backendai-agent").strip() != before
        watcher(machine, "POST", "/agent/stop")
        assert "inactive" in watcher(machine, "GET", "/")
        watcher(machine, "POST", "/agent/start")
        assert '"active"' in watcher(machine, "GET", "/")
        assert machine.succeed("docker inspect -f '{{.State.Running}}' lives").strip() == "true"
  '';
}
