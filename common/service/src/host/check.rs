//! The settings compared with the host this program runs on.

use std::path::Path;

use super::{HostSettings, Role};

/// A setting that the host has otherwise.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Difference {
    /// Which setting.
    pub what: String,
    /// What it should be.
    pub wanted: String,
    /// What it is.
    pub found: String,
    /// How to change it.
    pub remedy: String,
}

/// Everything that differs on a host whose file system begins at `root`.
pub fn differences(host: &HostSettings, role: Role, root: &Path) -> Vec<Difference> {
    let mut found = Vec::new();
    sysctl(host, role, root, &mut found);
    kernel(host, role, root, &mut found);
    limits(host, root, &mut found);
    units(host, role, root, &mut found);
    if role != Role::Manager {
        scratches(host, root, &mut found);
    }
    found
}

fn read(root: &Path, path: &str) -> Option<String> {
    // A file that is not there is a difference, which the caller tells.
    std::fs::read_to_string(root.join(path)).ok()
}

/// Fields divided by single blanks: the kernel prints tabs.
fn fields(text: &str) -> String {
    text.split_ascii_whitespace().collect::<Vec<_>>().join(" ")
}

fn sysctl(host: &HostSettings, role: Role, root: &Path, differences: &mut Vec<Difference>) {
    for (key, wanted) in host.sysctl(role) {
        let wanted = wanted.to_string();
        let path = format!("proc/sys/{}", key.replace('.', "/"));
        let found = read(root, &path).map_or_else(|| "absent".to_owned(), |text| fields(&text));
        if found != wanted {
            let remedy = if found == "absent" && key.starts_with("net.netfilter.") {
                "load the module nf_conntrack first (/etc/modules-load.d)".to_owned()
            } else {
                format!("sysctl -w {key}=\"{wanted}\", and keep it in /etc/sysctl.d")
            };
            differences.push(Difference { what: key.to_owned(), wanted, found, remedy });
        }
    }
}

fn kernel(host: &HostSettings, role: Role, root: &Path, differences: &mut Vec<Difference>) {
    let kernel = host.kernel(role);
    let command_line = read(root, "proc/cmdline").unwrap_or_default();
    for param in &kernel.params {
        if !command_line.split_ascii_whitespace().any(|given| given == param) {
            differences.push(Difference {
                what: format!("boot parameter {param}"),
                wanted: "given".into(),
                found: "absent".into(),
                remedy: "add it to the boot loader's configuration and restart the host".into(),
            });
        }
    }
    for module in &kernel.modules {
        if !root.join("sys/module").join(module).exists() {
            differences.push(Difference {
                what: format!("kernel module {module}"),
                wanted: "loaded".into(),
                found: "absent".into(),
                remedy: format!("modprobe {module}, and keep it in /etc/modules-load.d"),
            });
        }
    }
}

/// Limits of logins are files; those of services are in their units.
fn limits(host: &HostSettings, root: &Path, differences: &mut Vec<Difference>) {
    let mut lines: Vec<String> = read(root, "etc/security/limits.conf").into_iter().collect();
    if let Ok(entries) = std::fs::read_dir(root.join("etc/security/limits.d")) {
        let mut paths: Vec<_> = entries.filter_map(Result::ok).map(|entry| entry.path()).collect();
        paths.sort();
        lines.extend(paths.iter().filter_map(|path| std::fs::read_to_string(path).ok()));
    }
    let text = lines.join("\n");
    let given = |user: &str, kind: &str, item: &str| {
        text.lines().rev().find_map(|line| match *fields(line).split(' ').collect::<Vec<_>>() {
            [domain, how, what, value]
                if domain == user && (how == kind || how == "-") && what == item =>
            {
                Some(value.to_owned())
            }
            _ => None,
        })
    };
    for user in ["root", &host.users.service] {
        for kind in ["hard", "soft"] {
            for (item, wanted) in &host.limits {
                let found = given(user, kind, item).unwrap_or_else(|| "absent".to_owned());
                if found != wanted.to_string() {
                    differences.push(Difference {
                        what: format!("{kind} limit {item} of {user}"),
                        wanted: wanted.to_string(),
                        found,
                        remedy: format!(
                            "\"{user} {kind} {item} {wanted}\" in /etc/security/limits.d"
                        ),
                    });
                }
            }
        }
    }
}

fn units(host: &HostSettings, role: Role, root: &Path, differences: &mut Vec<Difference>) {
    for (name, unit) in host.units(role) {
        let path = format!("etc/systemd/system/{name}.service");
        let remedy = "install the unit that --print shows, then systemctl daemon-reload";
        let Some(text) = read(root, &path) else {
            differences.push(Difference {
                what: format!("unit {name}.service"),
                wanted: format!("/{path}"),
                found: "absent".into(),
                remedy: remedy.into(),
            });
            continue;
        };
        for (key, wanted) in &unit.service {
            // Programs may lie anywhere.
            if key == "ExecStart" {
                continue;
            }
            let shown = |value: &toml::Value| {
                value.as_str().map_or_else(|| value.to_string(), str::to_owned)
            };
            let wanted = match wanted.as_array() {
                Some(values) => values.iter().map(shown).collect::<Vec<_>>().join("; "),
                None => shown(wanted),
            };
            let prefix = format!("{key}=");
            let found: Vec<_> = text.lines().filter_map(|l| l.strip_prefix(&prefix)).collect();
            let found = found.join("; ");
            if found != wanted {
                let found = if text.contains(&prefix) { found } else { "absent".into() };
                let what = format!("{key} of {name}.service");
                differences.push(Difference { what, wanted, found, remedy: remedy.into() });
            }
        }
    }
}

fn scratches(host: &HostSettings, root: &Path, differences: &mut Vec<Difference>) {
    let path = &host.paths.scratches;
    if !root.join(path.trim_start_matches('/')).is_dir() {
        differences.push(Difference {
            what: format!("folder {path}"),
            wanted: "there, owned by the agent's user".into(),
            found: "absent".into(),
            remedy: format!("mkdir -p {path} (the agent's unit does so by CacheDirectory)"),
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::files::{Place, files};

    fn write(root: &Path, path: &str, text: &str) {
        let path = root.join(path.trim_start_matches('/'));
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    }

    #[test]
    fn a_host_with_the_printed_files_differs_in_nothing_and_each_change_is_told() {
        let (host, dir) = (HostSettings::built_in(), tempfile::tempdir().unwrap());
        let root = dir.path();
        let place = Place { bin: Path::new("/opt/bin"), config: Path::new("/etc/backend.ai") };
        for file in files(&host, Role::Both, &place) {
            write(root, file.path.to_str().unwrap(), &file.text);
        }
        for (key, value) in host.sysctl(Role::Both) {
            let shown = value.to_string().replace(' ', "\t");
            write(root, &format!("proc/sys/{}", key.replace('.', "/")), &format!("{shown}\n"));
        }
        write(root, "proc/cmdline", "quiet cgroup_enable=memory swapaccount=1\n");
        std::fs::create_dir_all(root.join("sys/module/nf_conntrack")).unwrap();
        std::fs::create_dir_all(root.join("var/cache/scratches")).unwrap();
        assert_eq!(differences(&host, Role::Both, root), []);

        write(root, "proc/sys/net/core/somaxconn", "128\n");
        write(root, "proc/cmdline", "quiet\n");
        let told: Vec<_> =
            differences(&host, Role::Both, root).into_iter().map(|d| (d.what, d.found)).collect();
        let expected = [
            ("net.core.somaxconn", "128"),
            ("boot parameter cgroup_enable=memory", "absent"),
            ("boot parameter swapaccount=1", "absent"),
        ];
        assert_eq!(told, expected.map(|(what, found)| (what.to_owned(), found.to_owned())));
    }
}
