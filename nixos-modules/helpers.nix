# What the modules share: units from the data, checked TOML, and assertions.
{ lib, pkgs }:
let
  data = import ./data.nix;

  # `key =` and `# key =` below `[section]` of a reference, as "section.key".
  knownKeys =
    reference:
    let
      lines = lib.filter builtins.isString (builtins.split "\n" (builtins.readFile reference));
      step =
        state: line:
        let
          section = builtins.match "[[]([a-z.-]+)[]]" line;
          key = builtins.match "(# )?([a-z][a-z0-9-]*) =.*" line;
        in
        if section != null then
          state // { section = builtins.head section; }
        else if key != null then
          state // { keys = state.keys ++ [ "${state.section}.${builtins.elemAt key 1}" ]; }
        else
          state;
    in
    (lib.foldl' step
      {
        section = "";
        keys = [ ];
      }
      lines
    ).keys;

  isValue = value: !(builtins.isAttrs value);
in
{
  inherit data;
  format = pkgs.formats.toml { };

  # TOML has no null: an option that is null is left out.
  withoutNulls = lib.filterAttrsRecursive (_: value: value != null);

  # A unit of `host.toml`. Each value is a default that a host may override.
  unit =
    name: package:
    let
      unit = data.units.${name};
      fill = builtins.replaceStrings [ "@bin@" "@config@" ] [ "${package}/bin" data.paths.config ];
      value = v: if builtins.isString v then fill v else v;
    in
    {
      inherit (unit) description;
      after = unit.after or [ ];
      before = unit.before or [ ];
      wants = unit.wants or [ ];
      requires = unit.requires or [ ];
      wantedBy = unit.wantedBy or [ ];
      serviceConfig = lib.mapAttrs
        (_: v: if builtins.isList v then v else lib.mkDefault (value v))
        unit.service;
    };

  # The file, once its daemon has found no fault with it: a wrong setting fails the build of
  # the system and not its boot.
  checked =
    { name
    , settings
    , programs
    ,
    }:
    let
      toml = (pkgs.formats.toml { }).generate name settings;
    in
    pkgs.runCommand name { } ''
      cp ${toml} ${name}
      ${lib.concatMapStringsSep "\n" (program: "${program} config check ${name}") programs}
      cp ${name} $out
    '';

  # Settings that the daemon does not know, told with the ones it does.
  unknownSettings =
    option: reference: settings:
    let
      known = knownKeys reference;
      sections = lib.unique (map (key: builtins.head (lib.splitString "." key)) known);
      inSection = section: lib.filter (lib.hasPrefix "${section}.") known;
      wrongKeys = lib.concatLists (
        lib.mapAttrsToList
          (
            section: values:
              if isValue values || !(lib.elem section sections) then
                [
                  {
                    assertion = false;
                    message = "${option}.${section}: there is no such section; use one of ${lib.concatStringsSep ", " sections}.";
                  }
                ]
              else
                map
                  (key: {
                    assertion = lib.elem "${section}.${key}" known;
                    message = "${option}.${section}.${key}: unknown setting; use one of ${lib.concatStringsSep ", " (inSection section)} (docs/config/${baseNameOf reference}).";
                  })
                  (lib.attrNames values)
          )
          settings
      );
    in
    wrongKeys;

  # Who can read the store can read a secret in it, and everybody can.
  secretOutsideStore = option: path: {
    assertion = path == null || !(lib.hasPrefix builtins.storeDir (toString path));
    message = "${option}: ${toString path} lies in the Nix store, which every user of the host can read. Give the path of a file outside it as text (\"/run/secrets/…\"), not as a path literal.";
  };

  secretNotInSettings = option: instead: value: {
    assertion = value == null || value == "";
    message = "${option}: a secret in settings ends in the Nix store, which every user of the host can read. ${instead}";
  };

  # The port at the end of "host:port".
  portOf = addr: lib.toInt (lib.last (lib.splitString ":" addr));
}
