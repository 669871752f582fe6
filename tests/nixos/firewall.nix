# Nothing is open that was not asked for, and stores never are.
{ pkgs, modules }:
let
  common = import ./common.nix { inherit pkgs modules; };
in
{
  name = "backendai-firewall";
  nodes = {
    open = common.host ../../examples/single.nix;
    closed = common.host {
      imports = [ ../../examples/single.nix ];
      services.backendai.manager.openFirewall = pkgs.lib.mkForce false;
      networking.hostName = pkgs.lib.mkForce "closed";
    };
    outside = { };
  };
  testScript = ''
    ${common.prelude}
    start_all()
    set_up(open)
    set_up(closed)
    outside.wait_until_succeeds("${pkgs.curl}/bin/curl -fsS http://open:8080/")
    outside.fail("${pkgs.curl}/bin/curl -fsS --connect-timeout 3 http://closed:8080/")
    for port in (2379, 5432, 6379, 6001, 6009):
        outside.fail(f"${pkgs.netcat}/bin/nc -z -w 3 open {port}")
  '';
}
