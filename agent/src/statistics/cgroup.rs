//! Where the kernel counts what a container uses, in both versions of cgroups.
//!
//! A container's cgroup is found by its first process, which is right whatever driver and
//! parent the engine was configured with. Everything here works on texts, so that files
//! recorded elsewhere can be tested with.

use std::path::{Path, PathBuf};

/// Limits above this are how version 1 says "none".
const NO_LIMIT: u64 = 1 << 62;

/// The files of one container.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CgroupFiles {
    /// How to read them.
    pub version: Version,
    /// Processor time.
    pub cpu: PathBuf,
    /// Memory in use.
    pub mem: PathBuf,
    /// What the memory is used for.
    pub mem_stat: PathBuf,
    /// The most memory it may use.
    pub mem_limit: PathBuf,
    /// Bytes from and to block devices; absent where the host does not count them.
    pub io: Option<PathBuf>,
}

/// A version of cgroups.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Version {
    /// A hierarchy for each controller.
    V1,
    /// One hierarchy.
    V2,
}

impl CgroupFiles {
    /// The files of the process with this `/proc/{pid}/cgroup`, for a reader with this
    /// `/proc/self/mountinfo`. `None` where its cgroups cannot be seen from here.
    pub fn find(cgroup: &str, mountinfo: &str) -> Option<Self> {
        let v1 = |controller: &str| {
            let path = cgroup.lines().find_map(|line| {
                let mut parts = line.splitn(3, ':').skip(1);
                let is_it = parts.next()?.split(',').any(|name| name == controller);
                parts.next().filter(|_| is_it)
            })?;
            folder(mountinfo, path, |kind, options| {
                kind == "cgroup" && options.split(',').any(|option| option == controller)
            })
        };
        if let (Some(cpu), Some(mem)) = (v1("cpuacct"), v1("memory")) {
            return Some(Self {
                version: Version::V1,
                cpu: cpu.join("cpuacct.usage"),
                mem: mem.join("memory.usage_in_bytes"),
                mem_stat: mem.join("memory.stat"),
                mem_limit: mem.join("memory.limit_in_bytes"),
                io: v1("blkio").map(|dir| dir.join("blkio.throttle.io_service_bytes")),
            });
        }
        let path = cgroup.lines().find_map(|line| line.strip_prefix("0::"))?;
        let dir = folder(mountinfo, path, |kind, _| kind == "cgroup2")?;
        Some(Self {
            version: Version::V2,
            cpu: dir.join("cpu.stat"),
            mem: dir.join("memory.current"),
            mem_stat: dir.join("memory.stat"),
            mem_limit: dir.join("memory.max"),
            io: Some(dir.join("io.stat")),
        })
    }
}

/// The folder of a cgroup, below the mount that `is_it` accepts by type and options.
fn folder(mountinfo: &str, cgroup: &str, is_it: impl Fn(&str, &str) -> bool) -> Option<PathBuf> {
    mountinfo.lines().find_map(|line| {
        let (mount, kind) = line.split_once(" - ")?;
        let mut kind = kind.split(' ');
        let is_mount = is_it(kind.next()?, kind.nth(1)?);
        let mut mount = mount.split(' ').skip(3);
        let (root, mount_point) = (mount.next()?, mount.next()?);
        let below = Path::new(cgroup).strip_prefix(root).ok()?;
        // A process outside this one's cgroup namespace is shown with leading `/..`.
        let is_visible = !below.starts_with("..");
        (is_mount && is_visible).then(|| Path::new(mount_point).join(below))
    })
}

/// Milliseconds of processor time.
pub fn cpu_ms(version: Version, text: &str) -> Option<f64> {
    match version {
        Version::V1 => text.trim().parse::<u64>().ok().map(|ns| ns as f64 / 1e6),
        Version::V2 => field(text, "usage_usec").map(|us| us as f64 / 1e3),
    }
}

/// A number that stands alone in its file; `None` for `max`.
pub fn number(text: &str) -> Option<u64> {
    text.trim().parse().ok()
}

/// A limit of memory, if there is one.
pub fn limit(text: &str) -> Option<u64> {
    number(text).filter(|limit| *limit < NO_LIMIT)
}

/// Bytes of files in memory that can be dropped at once.
pub fn inactive_file(version: Version, text: &str) -> u64 {
    let name = match version {
        Version::V1 => "total_inactive_file",
        Version::V2 => "inactive_file",
    };
    field(text, name).unwrap_or(0)
}

/// Bytes read from and written to all block devices.
pub fn io_bytes(version: Version, text: &str) -> (u64, u64) {
    let (mut read, mut written) = (0, 0);
    for line in text.lines() {
        match version {
            Version::V1 => {
                let mut parts = line.split_whitespace().skip(1);
                let Some((kind, count)) = parts.next().zip(parts.next()) else { continue };
                let count = count.parse().unwrap_or(0);
                match kind {
                    "Read" => read += count,
                    "Write" => written += count,
                    _ => {}
                }
            }
            Version::V2 => {
                for (name, count) in line.split_whitespace().filter_map(|p| p.split_once('=')) {
                    let count = count.parse().unwrap_or(0);
                    match name {
                        "rbytes" => read += count,
                        "wbytes" => written += count,
                        _ => {}
                    }
                }
            }
        }
    }
    (read, written)
}

fn field(text: &str, name: &str) -> Option<u64> {
    text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' ')?.trim().parse().ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `/proc/self/mountinfo` of a host with version 1, and of one with version 2.
    const MOUNTS_V1: &str = include_str!("recorded/v1/mountinfo");
    const MOUNTS_V2: &str = include_str!("recorded/v2/mountinfo");

    #[test]
    fn each_controller_of_version_1_has_its_folder() {
        let files = CgroupFiles::find(include_str!("recorded/v1/cgroup"), MOUNTS_V1).unwrap();
        assert_eq!(files.version, Version::V1);
        let id = "/docker/efa5fcdbb29236da38b699489f3219ca7bcb2a7620cf863d1244d0d5fe2b1860";
        let in_controller = |name: &str| PathBuf::from(format!("/sys/fs/cgroup/{name}{id}"));
        assert_eq!(files.cpu, in_controller("cpuacct").join("cpuacct.usage"));
        assert_eq!(files.mem, in_controller("memory").join("memory.usage_in_bytes"));
        assert!(files.io.unwrap().starts_with(in_controller("blkio")));
    }

    #[test]
    fn version_2_has_one_folder_whatever_the_driver() {
        let files = CgroupFiles::find(include_str!("recorded/v2/cgroup"), MOUNTS_V2).unwrap();
        assert_eq!(files.version, Version::V2);
        let scope = "/sys/fs/cgroup/system.slice/docker-4f1c.scope";
        assert_eq!(files.cpu, Path::new(scope).join("cpu.stat"));
        let plain = CgroupFiles::find("0::/docker/4f1c\n", MOUNTS_V2).unwrap();
        assert_eq!(plain.mem, Path::new("/sys/fs/cgroup/docker/4f1c/memory.current"));
    }

    #[test]
    fn what_cannot_be_seen_from_here_is_not_found() {
        assert_eq!(CgroupFiles::find("0::/../docker/4f1c\n", MOUNTS_V2), None);
        assert_eq!(CgroupFiles::find("0::/docker/4f1c\n", ""), None);
        assert_eq!(CgroupFiles::find("", MOUNTS_V2), None);
        let below = MOUNTS_V2.replace(" / /sys/fs/cgroup ", " /outer /sys/fs/cgroup ");
        let files = CgroupFiles::find("0::/outer/docker/4f1c\n", &below).unwrap();
        assert_eq!(files.cpu, Path::new("/sys/fs/cgroup/docker/4f1c/cpu.stat"));
    }

    #[test]
    fn counters_of_version_1_are_read() {
        let v1 = Version::V1;
        assert_eq!(cpu_ms(v1, "23004704\n"), Some(23.004704));
        assert_eq!(inactive_file(v1, include_str!("recorded/v1/memory.stat")), 1_507_328);
        assert_eq!(limit("9223372036854771712\n"), None);
        assert_eq!(limit("402653184\n"), Some(402_653_184));
        assert_eq!(io_bytes(v1, include_str!("recorded/v1/blkio")), (8192, 4096));
        assert_eq!(io_bytes(v1, "Total 0\n"), (0, 0));
    }

    #[test]
    fn counters_of_version_2_are_read() {
        let v2 = Version::V2;
        assert_eq!(cpu_ms(v2, include_str!("recorded/v2/cpu.stat")), Some(1534.289));
        assert_eq!(cpu_ms(v2, ""), None);
        assert_eq!(inactive_file(v2, include_str!("recorded/v2/memory.stat")), 12_288);
        assert_eq!(limit("max\n"), None);
        assert_eq!(io_bytes(v2, include_str!("recorded/v2/io.stat")), (1_441_792, 4096));
    }
}
