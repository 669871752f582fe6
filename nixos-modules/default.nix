# All modules: they ask one another what the host does, and each is off until it is enabled.
{
  imports = [
    ./manager.nix
    ./agent.nix
    ./watcher.nix
    ./halfstack.nix
    ./appliance.nix
    ./tuning.nix
  ];
}
