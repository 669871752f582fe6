# fails: services.backendai.agent.settings.agent.scaling-grup: unknown setting
{
  services.backendai.agent.enable = true;
  services.backendai.agent.settings.agent.scaling-grup = "default";
}
