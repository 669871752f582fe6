//! What the host is made of and how it fares, read from the kernel at each question.

use std::path::Path;

use serde::Serialize;

/// The host at this moment.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct Hardware {
    /// Cores that are online.
    pub cpu_cores: usize,
    /// Processes that run or wait for a disk, averaged over 1, 5 and 15 minutes.
    pub load_average: Vec<f64>,
    /// Bytes of memory.
    pub memory_bytes: Option<u64>,
    /// Bytes of memory that programs can still have.
    pub memory_available_bytes: Option<u64>,
    /// Seconds since the boot.
    pub uptime_s: Option<f64>,
    /// The disk of the kernels' files; `None` if their folder is not there.
    pub scratch_disk: Option<Disk>,
}

/// A file system.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct Disk {
    /// Bytes it holds.
    pub bytes: u64,
    /// Bytes that are free.
    pub free_bytes: u64,
    /// Files that can still be made.
    pub free_files: u64,
}

/// Looks at the host. What cannot be read is absent.
pub fn look(scratch_root: &Path) -> Hardware {
    let read = |path| std::fs::read_to_string(path).unwrap_or_default();
    let memory = read("/proc/meminfo");
    Hardware {
        cpu_cores: std::thread::available_parallelism().map_or(0, usize::from),
        load_average: read("/proc/loadavg")
            .split(' ')
            .take(3)
            .map_while(|n| n.parse().ok())
            .collect(),
        memory_bytes: kibibytes(&memory, "MemTotal:"),
        memory_available_bytes: kibibytes(&memory, "MemAvailable:"),
        uptime_s: read("/proc/uptime").split(' ').next().and_then(|n| n.parse().ok()),
        scratch_disk: rustix::fs::statvfs(scratch_root).ok().map(|disk| Disk {
            bytes: disk.f_blocks * disk.f_frsize,
            free_bytes: disk.f_bavail * disk.f_frsize,
            free_files: disk.f_favail,
        }),
    }
}

fn kibibytes(memory: &str, name: &str) -> Option<u64> {
    let line = memory.lines().find_map(|line| line.strip_prefix(name))?;
    line.trim().strip_suffix(" kB")?.parse::<u64>().ok().map(|k| k << 10)
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_host_has_cores_memory_and_a_disk() {
        let seen = super::look(std::path::Path::new("/"));
        assert!(seen.cpu_cores > 0 && seen.load_average.len() == 3, "{seen:?}");
        assert!(seen.memory_bytes > seen.memory_available_bytes, "{seen:?}");
        assert!(seen.scratch_disk.is_some(), "{seen:?}");
    }
}
