# fails: there is no scaling group "gpus"; declare it
{
  services.backendai.manager = {
    enable = true;
    site.scaling-groups.gpu.domains = [ "default" ];
    site.projects.research.scaling-groups = [ "gpus" ];
  };
}
