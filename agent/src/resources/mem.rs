//! Main memory of the host.

/// Total memory in bytes, zero where the host does not say.
pub fn total_bytes() -> u64 {
    field("MemTotal:").unwrap_or(0)
}

/// Memory in use in bytes: what is not available for new work.
pub fn used_bytes() -> u64 {
    total_bytes().saturating_sub(field("MemAvailable:").unwrap_or(0))
}

fn field(name: &str) -> Option<u64> {
    parse_field(&std::fs::read_to_string("/proc/meminfo").ok()?, name)
}

fn parse_field(text: &str, name: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix(name))?;
    line.split_whitespace().next()?.parse::<u64>().ok().map(|kib| kib * 1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_in_bytes() {
        let text = "MemTotal:       100 kB\nMemFree:  1 kB\nMemAvailable:     40 kB\n";
        assert_eq!(parse_field(text, "MemTotal:"), Some(102_400));
        assert_eq!(parse_field(text, "MemAvailable:"), Some(40_960));
        assert!(total_bytes() > 0);
    }
}
