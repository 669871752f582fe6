# The daemons, the kernel runner, and all of them together.
{ pkgs }:
let
  inherit (pkgs) lib;
  root = ../.;
  version = (lib.importTOML ../Cargo.toml).workspace.package.version;

  # What the compiler reads, and nothing else: an edit of a document builds nothing anew.
  src = lib.fileset.toSource {
    inherit root;
    fileset = lib.fileset.unions [
      ../Cargo.toml
      ../Cargo.lock
      ../.cargo
      ../agent
      ../common
      ../kernel-runner
      ../manager
      ../migrations
      ../tests
      ../watcher
      # Read by `include_str!`.
      ../nixos-modules/host.toml
      ../sample-configs
    ];
  };

  daemon =
    name:
    pkgs.rustPlatform.buildRustPackage {
      pname = name;
      inherit version src;
      cargoLock.lockFile = ../Cargo.lock;
      cargoBuildFlags = [
        "-p"
        name
      ];
      nativeBuildInputs = [
        pkgs.pkg-config
        pkgs.protobuf
      ];
      buildInputs = [
        pkgs.zeromq
        pkgs.libsodium
      ];
      env.PROTOC = "${pkgs.protobuf}/bin/protoc";
      # The tests want servers and Docker, which the build's sandbox has not.
      doCheck = false;
      meta = {
        description = "Backend.AI: compute sessions in containers";
        license = lib.licenses.asl20;
        mainProgram = name;
        platforms = lib.platforms.linux;
      };
    };

  kernelRunner = (daemon "backendai-kernel-runner").overrideAttrs {
    # One binary for every image, whatever C library that has, if any.
    env.RUSTFLAGS = "-C target-feature=+crt-static";
    buildInputs = [ (pkgs.glibc.static or pkgs.glibc) ];
  };

  packages = {
    backendai-manager = daemon "backendai-manager";
    backendai-agent = daemon "backendai-agent";
    backendai-watcher = daemon "backendai-watcher";
    backendai-kernel-runner = kernelRunner;
  };
in
packages
  // {
  # Everything in one folder, for hosts of other distributions.
  backendai = pkgs.symlinkJoin {
    name = "backendai-${version}";
    paths = lib.attrValues packages;
  };
}
