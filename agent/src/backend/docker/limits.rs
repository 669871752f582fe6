//! Which limits the engine can set.
//!
//! An engine without `CAP_SYS_RESOURCE` (in a container or a restricted host) cannot raise
//! a limit beyond its own hard one; asking for it makes every container fail to start. So
//! what is asked for is cut to what the engine's process has.

use rustix::fd::AsFd;

/// `CAP_SYS_RESOURCE` in the kernel's numbering.
const CAP_SYS_RESOURCE: u32 = 24;
/// Open files a kernel gets where the host allows it.
const WANTED_OPEN_FILES: i64 = 1_048_576;
/// Docker's notation of "no limit".
const UNLIMITED: i64 = -1;

/// Limits for containers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rlimits {
    /// Open files.
    pub nofile: i64,
    /// Locked memory in bytes, -1 without limit.
    pub memlock: i64,
}

/// What the engine behind a unix socket can set; judged by this process where the engine
/// is elsewhere.
pub fn engine_rlimits(socket: Option<&str>) -> Rlimits {
    let pid = socket.and_then(engine_pid).map_or_else(|| "self".to_owned(), |pid| pid.to_string());
    let read = |file: &str| std::fs::read_to_string(format!("/proc/{pid}/{file}")).ok();
    let nr_open = std::fs::read_to_string("/proc/sys/fs/nr_open")
        .ok()
        .and_then(|text| text.trim().parse().ok())
        .unwrap_or(WANTED_OPEN_FILES);
    let limits = match (read("status"), read("limits")) {
        (Some(status), Some(limits)) => clamp(&status, &limits, nr_open),
        _ => Rlimits { nofile: WANTED_OPEN_FILES.min(nr_open), memlock: UNLIMITED },
    };
    let wanted = Rlimits { nofile: WANTED_OPEN_FILES, memlock: UNLIMITED };
    if limits != wanted {
        tracing::warn!(
            nofile = limits.nofile,
            memlock_bytes = limits.memlock,
            "the host lets containers have fewer open files or less locked memory than wanted",
        );
    }
    limits
}

/// The process that listens on a unix socket.
fn engine_pid(socket: &str) -> Option<i32> {
    let stream = std::os::unix::net::UnixStream::connect(socket).ok()?;
    let peer = rustix::net::sockopt::socket_peercred(stream.as_fd()).ok()?;
    Some(peer.pid.as_raw_nonzero().get())
}

fn clamp(status: &str, limits: &str, nr_open: i64) -> Rlimits {
    let capabilities = status
        .lines()
        .find_map(|line| line.strip_prefix("CapEff:"))
        .and_then(|hex| u64::from_str_radix(hex.trim(), 16).ok())
        .unwrap_or(0);
    if capabilities & (1 << CAP_SYS_RESOURCE) != 0 {
        return Rlimits { nofile: WANTED_OPEN_FILES.min(nr_open), memlock: UNLIMITED };
    }
    let hard = |name: &str| {
        let line = limits.lines().find_map(|line| line.strip_prefix(name))?;
        let value = line.split_whitespace().nth(1)?;
        if value == "unlimited" { Some(i64::MAX) } else { value.parse().ok() }
    };
    let memlock = hard("Max locked memory").unwrap_or(i64::MAX);
    Rlimits {
        nofile: WANTED_OPEN_FILES.min(nr_open).min(hard("Max open files").unwrap_or(i64::MAX)),
        memlock: if memlock == i64::MAX { UNLIMITED } else { memlock },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: &str = "\
Limit                     Soft Limit           Hard Limit           Units     
Max open files            1024                 20000                files     
Max locked memory         65536                8388608              bytes     
";

    #[test]
    fn limits_are_cut_only_where_the_engine_cannot_raise_them() {
        let bound = clamp("CapEff:\t00000000a80425fb\n", LIMITS, 1 << 30);
        assert_eq!(bound, Rlimits { nofile: 20000, memlock: 8_388_608 });
        let free = clamp("CapEff:\t000001ffffffffff\n", LIMITS, 1 << 30);
        assert_eq!(free, Rlimits { nofile: WANTED_OPEN_FILES, memlock: UNLIMITED });
        assert_eq!(clamp("CapEff:\t000001ffffffffff\n", LIMITS, 4096).nofile, 4096);
    }
}
