# fails: Use services.backendai.manager.dbPasswordFile
{
  services.backendai.manager.enable = true;
  services.backendai.manager.settings.db.password = "hunter2";
}
