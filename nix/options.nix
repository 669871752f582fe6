# The reference of the modules' options as Markdown, made without any library: the parts of
# `lib` that declarations of options use are played here.
let
  join = builtins.concatStringsSep;
  quoted = values: join ", " (map builtins.toJSON values);
  types = {
    bool = "true or false";
    str = "text";
    path = "path";
    port = "port";
    package = "package";
    nullOr = type: "null or ${type}";
    attrsOf = type: "set of ${type}";
    anything = "anything";
    listOf = type: "list of ${type}";
    enum = values: "one of ${quoted values}";
    addCheck = type: _: type;
    submodule = module: module;
  };
  lib = {
    inherit types;
    mkOption = option: option // { isOption = true; };
    mkEnableOption = what: lib.mkOption {
      type = types.bool;
      default = false;
      description = "Whether to enable ${what}.";
    };
    literalExpression = text: { literal = text; };
    filterAttrsRecursive = _: attrs: attrs;
    # Only what is declared is asked for, never what hosts make of it.
    mkIf = _: _: { };
    mkMerge = _: { };
    genAttrs = _: _: { };
  };
  pkgs = {
    inherit lib;
    formats.toml = _: { type = "TOML"; generate = _: _: ""; };
  };
  config.services = { };

  declared = module:
    (import module { inherit config lib pkgs; }).options.services.backendai;

  modules = [
    ../nixos-modules/appliance.nix
    ../nixos-modules/manager.nix
    ../nixos-modules/agent.nix
    ../nixos-modules/watcher.nix
    ../nixos-modules/halfstack.nix
    ../nixos-modules/tuning.nix
  ];

  walk = path: value:
    if value ? isOption then
      [ (entry path value) ] ++ (
        # A submodule's own options stand below it.
        if builtins.isAttrs value.type then walk path value.type.options else [ ]
      )
    else
      builtins.concatLists (map (name: walk "${path}.${name}" value.${name}) (builtins.attrNames value));

  default = option:
    if option ? defaultText then
      option.defaultText.literal
    else if option ? default then
      builtins.toJSON option.default
    else
      "none: it must be set";

  trimmed = text: join " " (builtins.filter (part: builtins.isString part && part != "") (builtins.split "[ \n]+" text));

  entry = path: option: ''
    ### `${path}`

    ${trimmed option.description}

    Type: ${if builtins.isAttrs option.type then "TOML, with the settings below" else option.type}.
    Default: `${default option}`.
    ${if option ? example then "Example: `${builtins.toJSON option.example}`.\n" else ""}'';
in
''
  # Options of the NixOS modules

  Made from the modules: `nix/check.sh --options > docs/nixos-options.md`. A test compares.

''
  + join "\n" (builtins.concatLists (map (module: walk "services.backendai" (declared module)) modules))
