//! Whether the container ran out of memory, which its programs do not see themselves: they
//! are killed.

use std::path::{Path, PathBuf};

/// Counter and limit of memory, below the cgroup's folder, by version of cgroups.
const FILES: [(&str, &str); 2] = [
    ("memory.events", "memory.max"),
    ("memory/memory.oom_control", "memory/memory.limit_in_bytes"),
];
/// The counter's name in its file.
const KILLS: &str = "oom_kill";
const MIB: u64 = 1 << 20;

/// The memory of this container.
pub struct Memory {
    cgroup: PathBuf,
}

/// How many processes had been killed at some moment.
pub struct Kills(Option<u64>);

impl Memory {
    /// As the kernel shows it under `cgroup`.
    pub fn new(cgroup: PathBuf) -> Self {
        Self { cgroup }
    }

    /// The number of killed processes, to be compared later.
    pub fn kills(&self) -> Kills {
        Kills(FILES.iter().find_map(|(events, _)| read_kills(&self.cgroup.join(events))))
    }

    /// What to tell the user if processes were killed since. A system that does not count them
    /// says nothing.
    pub fn complaint(&self, since: &Kills) -> Option<String> {
        let killed = self.kills().0?.checked_sub(since.0?).filter(|killed| *killed > 0)?;
        let processes =
            if killed == 1 { "1 process".into() } else { format!("{killed} processes") };
        let limit = FILES.iter().find_map(|(_, limit)| read_number(&self.cgroup.join(limit)));
        let limit = limit.map_or(String::new(), |bytes| format!(" of {} MiB", bytes / MIB));
        Some(format!("the session's memory{limit} was used up: {processes} killed"))
    }
}

fn read_kills(path: &Path) -> Option<u64> {
    let text = std::fs::read_to_string(path).ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix(KILLS)?.strip_prefix(' '))?;
    line.trim().parse().ok()
}

/// `None` for a limit that is none, too: `max`.
fn read_number(path: &Path) -> Option<u64> {
    std::fs::read_to_string(path).ok()?.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_versions_of_cgroups_are_understood() {
        for (events, limit) in FILES {
            let folder = tempfile::tempdir().unwrap();
            std::fs::create_dir(folder.path().join("memory")).unwrap();
            let write = |name: &str, text: &str| {
                std::fs::write(folder.path().join(name), text).unwrap();
            };
            let memory = Memory::new(folder.path().to_owned());
            assert_eq!(memory.complaint(&memory.kills()), None);
            write(events, "oom_kill_disable 0\nunder_oom 0\noom 7\noom_kill 2\noom_group_kill 0\n");
            write(limit, "max\n");
            let before = memory.kills();
            assert_eq!(memory.complaint(&before), None);
            write(events, "oom_kill 3\n");
            let complaint = memory.complaint(&before).unwrap();
            assert_eq!(complaint, "the session's memory was used up: 1 process killed");
            write(events, "oom_kill 4\n");
            write(limit, "402653184\n");
            let complaint = memory.complaint(&before).unwrap();
            assert_eq!(
                complaint,
                "the session's memory of 384 MiB was used up: 2 processes killed"
            );
        }
    }
}
