//! Networks users may call from.

use std::net::IpAddr;

use ipnet::IpNet;

/// `10.0.0.0/8`, `10.1.2.3`, or with wildcards `192.10.*.*`.
pub fn parse_network(text: &str) -> Option<IpNet> {
    if let Ok(network) = text.parse::<IpNet>() {
        return Some(network.trunc());
    }
    if let Ok(address) = text.parse::<IpAddr>() {
        return Some(address.into());
    }
    let octets: Vec<&str> = text.split('.').collect();
    let fixed = octets.iter().take_while(|octet| **octet != "*").count();
    let rest_is_wild = octets[fixed..].iter().all(|octet| *octet == "*");
    if octets.len() != 4 || fixed == 4 || !rest_is_wild {
        return None;
    }
    let address = text.replace('*', "0").parse().ok()?;
    IpNet::new(address, fixed as u8 * 8).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn networks_are_read_with_prefix_or_wildcards() {
        for (text, expected) in [
            ("10.1.2.3", Some("10.1.2.3/32")),
            ("10.1.2.3/8", Some("10.0.0.0/8")),
            ("192.10.*.*", Some("192.10.0.0/16")),
            ("*.*.*.*", Some("0.0.0.0/0")),
            ("fd00::/8", Some("fd00::/8")),
            ("10.*.2.3", None),
            ("10.1.2", None),
            ("", None),
        ] {
            assert_eq!(parse_network(text).map(|n| n.to_string()).as_deref(), expected, "{text}");
        }
    }
}
