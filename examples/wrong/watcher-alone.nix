# fails: set services.backendai.agent.enable
{
  services.backendai.watcher.enable = true;
}
