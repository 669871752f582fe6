# A new generation of the system while a container runs: the daemons change, it does not.
{ pkgs, modules }:
let
  common = import ./common.nix { inherit pkgs modules; };
in
{
  name = "backendai-upgrade";
  nodes.machine =
    { ... }:
    {
      imports = [ (common.host ../../examples/single.nix) ];
      specialisation.next.configuration = {
        # A changed configuration stands for a changed program: units are restarted for either.
        services.backendai.manager.settings.logging.level = "DEBUG";
        services.backendai.agent.settings.logging.level = "DEBUG";
      };
    };
  testScript = ''
    ${common.prelude}
    machine.start()
    set_up(machine)
    is_alive(machine, "i-backendai")
    machine.succeed("docker load --input=${common.kernelImage}")
    machine.succeed("docker run -d --name lives ${common.kernelImage.imageName}:${common.kernelImage.imageTag} sleep 600")
    before = machine.succeed("systemctl show -P MainPID backendai-agent").strip()
    machine.succeed("/run/booted-system/specialisation/next/bin/switch-to-configuration test")
    machine.wait_for_unit("backendai-manager.service")
    machine.wait_for_unit("backendai-agent.service")
    assert machine.succeed("systemctl show -P MainPID backendai-agent").strip() != before
    is_alive(machine, "i-backendai")
    assert machine.succeed("docker inspect -f '{{.State.Running}}' lives").strip() == "true"
  '';
}
