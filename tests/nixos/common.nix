# What the tests with virtual machines share: hosts, a kernel image without a network, and the
# scenario. The scenario is the repository's own: the stock client's protocol as
# `sample-configs` sets it up, driven by the management command line and signed requests.
{ pkgs, modules }:
let
  kernelImage = import ../../nix/kernel-image.nix { inherit pkgs; };
  token = "0123456789abcdef0123456789abcdef";
in
{
  inherit kernelImage token;

  host =
    extra:
    { ... }:
    {
      imports = modules ++ [ extra ];
      virtualisation = {
        memorySize = 2048;
        cores = 2;
        diskSize = 6144;
      };
      # The fixtures bring their own people; the example's have secrets that are not here.
      services.backendai.manager.site.users = pkgs.lib.mkForce { };
      environment.etc."backend.ai/fixtures".source = ../../sample-configs;
      environment.systemPackages = [ pkgs.curl pkgs.jq ];
    };

  # Python functions for every test script.
  prelude = ''
    CLI = "backendai-manager --config /etc/backend.ai/manager.toml"
    TOKEN = "${token}"

    def set_up(manager):
        """Users, projects and the watchers' token, as a new site has them."""
        manager.wait_for_unit("backendai-manager-migrate.service")
        manager.succeed(f"sudo -u backendai {CLI} fixture populate /etc/backend.ai/fixtures/example-keypairs.json")
        manager.succeed(f"{CLI} etcd put config/watcher/token {TOKEN}")
        manager.wait_for_unit("backendai-manager.service")
        manager.wait_until_succeeds("curl -fsS http://127.0.0.1:8080/")

    def is_alive(manager, agent_id):
        query = f"SELECT status FROM agents WHERE id = '{agent_id}'"
        manager.wait_until_succeeds(f"sudo -u backendai psql -tA backendai -c \"{query}\" | grep ALIVE")

    def watcher(host, method, path):
        """A request to a watcher from its own host."""
        return host.succeed(f"curl -fsS -X {method} -H 'X-BackendAI-Watcher-Token: {TOKEN}' http://127.0.0.1:6009{path}")
  '';
}
