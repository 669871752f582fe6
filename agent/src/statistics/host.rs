//! Reads the counters of the host this process runs on.

use std::fs;
use std::path::Path;

use super::net;
use super::sample::{CoreSample, DiskSample, NodeSample};
use crate::resources::mem;

/// The kernel's clock ticks are hundredths of a second on every Linux.
const TICK_MS: u64 = 10;
/// File systems on a device that are none of the host's storage: images of programs, and
/// firmware's partitions.
const NO_STORAGE: [&str; 2] = ["squashfs", "vfat"];

/// The present counters; what the host does not tell is empty or zero. Blocks.
pub fn sample() -> NodeSample {
    let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
    let interfaces = read("/proc/net/dev");
    let (net_rx, net_tx) = net::bytes(&interfaces, uplinks(&interfaces));
    NodeSample {
        cores: cores(&read("/proc/stat")),
        mem_total: mem::total_bytes(),
        mem_used: mem::used_bytes(),
        disks: mounts(&read("/proc/self/mounts")).into_iter().filter_map(disk).collect(),
        net_rx,
        net_tx,
    }
}

/// Accepts the interfaces with a device behind them: what goes through a bridge goes
/// through one of these as well. All but the loopback where there are none, as inside a
/// container.
fn uplinks(interfaces: &str) -> impl Fn(&str) -> bool + use<> {
    let has_device = |name: &str| Path::new("/sys/class/net").join(name).join("device").exists();
    let is_any_real = net::names(interfaces).any(has_device);
    move |name| if is_any_real { has_device(name) } else { name != net::LOOPBACK }
}

fn cores(stat: &str) -> Vec<CoreSample> {
    stat.lines().filter_map(core).collect()
}

fn core(line: &str) -> Option<CoreSample> {
    let (name, fields) = line.strip_prefix("cpu")?.split_once(' ')?;
    let core = name.parse().ok()?;
    // Time of guests, which follows, is in the first two already.
    let ticks: Vec<u64> = fields.split_whitespace().map_while(|f| f.parse().ok()).take(8).collect();
    let total: u64 = ticks.iter().sum();
    let idle = ticks.get(3)? + ticks.get(4).copied().unwrap_or(0);
    Some(CoreSample { core, busy_ms: (total - idle) * TICK_MS, total_ms: total * TICK_MS })
}

/// Mount points of file systems on devices of this host, each device once. Asking a remote
/// file system how full it is could take for ever.
fn mounts(text: &str) -> Vec<&str> {
    let mut seen = Vec::new();
    let mut found = Vec::new();
    for line in text.lines() {
        let mut fields = line.split(' ');
        let (Some(device), Some(point), Some(kind)) = (fields.next(), fields.next(), fields.next())
        else {
            continue;
        };
        if device.starts_with("/dev/") && !NO_STORAGE.contains(&kind) && !seen.contains(&device) {
            seen.push(device);
            found.push(point);
        }
    }
    found
}

fn disk(mount_point: &str) -> Option<DiskSample> {
    // The kernel writes a blank in a path as octal.
    let path = mount_point.replace("\\040", " ");
    let about = rustix::fs::statvfs(path.as_str()).ok()?;
    let bytes = |blocks: u64| blocks.saturating_mul(about.f_frsize);
    let used = bytes(about.f_blocks.saturating_sub(about.f_bfree));
    Some(DiskSample { mount_point: path, size: bytes(about.f_blocks), used })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn idle_and_waiting_ticks_are_not_busy() {
        let stat = "cpu  20 0 40 120 20 0 0 0 0 0\ncpu0 10 0 20 60 10 0 0 0 5 0\nintr 7\n";
        assert_eq!(cores(stat), [CoreSample { core: 0, busy_ms: 300, total_ms: 1000 }]);
    }

    #[test]
    fn each_storage_device_counts_once() {
        let text = "/dev/vda1 / ext4 rw 0 0\nproc /proc proc rw 0 0\n\
            /dev/vda1 /var/lib/docker ext4 rw 0 0\n/dev/loop0 /snap squashfs ro 0 0\n\
            /dev/vda15 /boot/efi vfat rw 0 0\nnas:/x /mnt nfs rw 0 0\n/dev/vdb /data xfs rw 0 0\n";
        assert_eq!(mounts(text), ["/", "/data"]);
    }

    #[test]
    fn this_host_has_cores_and_memory() {
        let sample = sample();
        assert!(!sample.cores.is_empty() && sample.mem_total > sample.mem_used, "{sample:?}");
    }
}
