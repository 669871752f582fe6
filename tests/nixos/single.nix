# One host that is a whole cluster: services, settings of the kernel, limits, units.
{ pkgs, modules }:
let
  common = import ./common.nix { inherit pkgs modules; };
in
{
  name = "backendai-single";
  nodes.machine = common.host ../../examples/single.nix;
  testScript = ''
    ${common.prelude}
    machine.start()
    set_up(machine)
    machine.succeed("docker load --input=${common.kernelImage}")

    with subtest("the agent comes alive and keeps its watchdog fed"):
        machine.wait_for_unit("backendai-agent.service")
        is_alive(machine, "i-backendai")
        assert machine.succeed("systemctl show -P NRestarts backendai-agent").strip() == "0"

    with subtest("the host is set as the data say"):
        machine.succeed("backendai-manager host-config --check --role both || true")
        assert "40000\t65000" in machine.succeed("sysctl -n net.ipv4.ip_local_port_range")
        assert machine.succeed("sysctl -n net.netfilter.nf_conntrack_max").strip() == "10485760"
        assert "cgroup_enable=memory" in machine.succeed("cat /proc/cmdline")
        assert machine.succeed("systemctl show -P LimitNOFILE backendai-agent").strip() == "512000"
        machine.succeed("test -d /var/cache/scratches")

    with subtest("sessions outlive their agent"):
        machine.succeed("docker run -d --name lives ${common.kernelImage.imageName}:${common.kernelImage.imageTag} sleep 600")
        machine.succeed("systemctl restart backendai-agent.service")
        is_alive(machine, "i-backendai")
        assert machine.succeed("docker inspect -f '{{.State.Running}}' lives").strip() == "true"
  '';
}
