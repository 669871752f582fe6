//! Bytes that went through network interfaces.

/// The interface to oneself.
pub const LOOPBACK: &str = "lo";

/// Bytes received and sent by the interfaces that `counts` accepts, from the text of a
/// `/proc/…/net/dev`.
pub fn bytes(text: &str, counts: impl Fn(&str) -> bool) -> (u64, u64) {
    let (mut received, mut sent) = (0, 0);
    for line in text.lines() {
        let Some((name, fields)) = line.split_once(':') else { continue };
        if !counts(name.trim()) {
            continue;
        }
        let mut fields = fields.split_whitespace().map(|field| field.parse().unwrap_or(0));
        received += fields.next().unwrap_or(0);
        sent += fields.nth(7).unwrap_or(0);
    }
    (received, sent)
}

/// Names of all interfaces in such a text.
pub fn names(text: &str) -> impl Iterator<Item = &str> {
    text.lines().filter_map(|line| line.split_once(':')).map(|(name, _)| name.trim())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_are_summed_over_the_interfaces_that_count() {
        let text = include_str!("recorded/net_dev");
        assert_eq!(bytes(text, |name| name != LOOPBACK), (9200, 8070));
        assert_eq!(bytes(text, |name| name == "eth0"), (200, 70));
        assert_eq!(names(text).collect::<Vec<_>>(), ["lo", "eth0", "veth7e0"]);
        assert_eq!(bytes("", |_| true), (0, 0));
    }
}
