# The packages under their own names, for the modules and for others' configurations.
final: _prev:
import ./packages.nix { pkgs = final; }
