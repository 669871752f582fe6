# fails: lies in the Nix store
{
  services.backendai.manager.enable = true;
  services.backendai.manager.dbPasswordFile = "${builtins.storeDir}/00000000000000000000000000000000-password";
}
