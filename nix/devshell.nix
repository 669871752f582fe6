# Everything `./halfstack` needs, so that it installs nothing by itself inside this shell.
{ pkgs }:
pkgs.mkShell {
  packages = with pkgs; [
    cargo
    rustc
    clippy
    rustfmt
    cargo-nextest
    cargo-deny
    pkg-config
    protobuf
    zeromq
    libsodium
    postgresql_15
    redis
    etcd
    docker-client
    docker-distribution
    debootstrap
    pkgsStatic.busybox
    python311
    wrk
    openssh
  ];
  # The kernel runner is linked statically.
  buildInputs = [ pkgs.glibc.static ];
}
