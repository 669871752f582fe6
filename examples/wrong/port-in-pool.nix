# fails: must be different ports outside container.port-range
{
  services.backendai.agent.enable = true;
  services.backendai.agent.settings.agent.rpc-listen-addr = ":30500";
}
