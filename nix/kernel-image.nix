# A kernel image for machines without a network: the runner needs nothing of it, and Python is
# what the tests run.
{ pkgs }:
pkgs.dockerTools.buildLayeredImage {
  name = "backendai/python";
  tag = "3-nix";
  contents = [
    pkgs.python3
    pkgs.bashInteractive
    pkgs.coreutils
  ];
  config.Labels = {
    "ai.backend.kernelspec" = "1";
    "ai.backend.role" = "COMPUTE";
    "ai.backend.runtime-type" = "python";
    "ai.backend.runtime-path" = "/bin/python3";
    "ai.backend.resource.min.cpu" = "1";
    "ai.backend.resource.min.mem" = "64m";
  };
}
