# The host settings per role, without any library, so that they can be evaluated and compared
# on a machine that has no nixpkgs.
let
  host = builtins.fromTOML (builtins.readFile ./host.toml);
  inherit (host) sysctl kernel;
in
host
  // {
  roles = {
    manager = {
      sysctl = sysctl.common // sysctl.manager;
      inherit (kernel.manager) params modules;
    };
    agent = {
      sysctl = sysctl.common // sysctl.agent;
      inherit (kernel.agent) params modules;
    };
    # One host with both: the agent's settings win.
    both = {
      sysctl = sysctl.common // sysctl.manager // sysctl.agent;
      inherit (kernel.agent) params modules;
    };
  };
}
