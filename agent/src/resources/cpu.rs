//! The cores that containers may use.

use std::path::Path;

/// Files that list the cores of the engine's parent cgroup, most specific first:
/// cgroup v1, then v2 with and without systemd.
const CPUSET_FILES: [&str; 5] = [
    "/sys/fs/cgroup/cpuset/docker/cpuset.effective_cpus",
    "/sys/fs/cgroup/docker/cpuset.cpus.effective",
    "/sys/fs/cgroup/system.slice/cpuset.cpus.effective",
    "/sys/fs/cgroup/cpuset/cpuset.effective_cpus",
    "/sys/fs/cgroup/cpuset.cpus.effective",
];

/// Numbers of the cores that containers may use: those of the engine's cgroup, else those
/// this process may run on, else all.
pub fn usable_cores() -> Vec<u32> {
    for file in CPUSET_FILES {
        let cores = std::fs::read_to_string(file).ok().and_then(|text| parse_core_list(&text));
        if let Some(cores) = cores.filter(|cores| !cores.is_empty()) {
            return cores;
        }
    }
    if let Ok(mask) = rustix::thread::sched_getaffinity(None) {
        let cores: Vec<u32> = (0..rustix::thread::CpuSet::MAX_CPU)
            .filter(|core| mask.is_set(*core))
            .map(|core| core as u32)
            .collect();
        if !cores.is_empty() {
            return cores;
        }
    }
    let count = std::thread::available_parallelism().map_or(1, usize::from);
    (0..count as u32).collect()
}

/// The NUMA node of a core, if the host says.
pub fn numa_node(core: u32) -> Option<i32> {
    let folder = Path::new("/sys/devices/system/cpu").join(format!("cpu{core}"));
    let entries = std::fs::read_dir(folder).ok()?;
    entries
        .flatten()
        .find_map(|entry| entry.file_name().to_str()?.strip_prefix("node")?.parse().ok())
}

/// Reads the kernel's notation `0-3,8`.
fn parse_core_list(text: &str) -> Option<Vec<u32>> {
    let mut cores = Vec::new();
    for part in text.trim().split(',').filter(|part| !part.is_empty()) {
        match part.split_once('-') {
            Some((from, to)) => cores.extend(from.parse::<u32>().ok()?..=to.parse::<u32>().ok()?),
            None => cores.push(part.parse().ok()?),
        }
    }
    Some(cores)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn core_lists_are_read() {
        assert_eq!(parse_core_list("0-3,8\n"), Some(vec![0, 1, 2, 3, 8]));
        assert_eq!(parse_core_list("5"), Some(vec![5]));
        assert_eq!(parse_core_list("a"), None);
        assert!(!usable_cores().is_empty());
    }
}
