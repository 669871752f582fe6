//! Headers of registries: where to authenticate, and where a list goes on.

use reqwest::Url;

/// The address in `<…>; rel="next"`, if it stays with the same server: our credentials
/// travel with the request.
pub(super) fn next_page(current: &Url, link: &str) -> Option<String> {
    let (address, rest) = link.trim().strip_prefix('<')?.split_once('>')?;
    if !rest.contains("next") {
        return None;
    }
    let next = current.join(address).ok()?;
    (next.origin() == current.origin()).then(|| next.to_string())
}

/// What a `WWW-Authenticate` header asks for.
pub(super) struct Challenge {
    /// Where tokens are given out; `None` for basic authentication.
    pub(super) realm: Option<String>,
    pub(super) service: Option<String>,
}

impl Challenge {
    pub(super) fn parse(header: &str) -> Option<Self> {
        let (scheme, mut rest) = header.trim().split_once(' ').unwrap_or((header.trim(), ""));
        if scheme.eq_ignore_ascii_case("basic") {
            return Some(Self { realm: None, service: None });
        }
        if !scheme.eq_ignore_ascii_case("bearer") {
            return None;
        }
        let mut challenge = Self { realm: None, service: None };
        while let Some((name, tail)) = rest.split_once('=') {
            let (value, next) = match tail.strip_prefix('"') {
                Some(quoted) => quoted.split_once('"')?,
                None => tail.split_once(',').map_or((tail, ""), |(v, r)| (v, r)),
            };
            match name.trim_matches([' ', ',']) {
                "realm" => challenge.realm = Some(value.to_owned()),
                "service" => challenge.service = Some(value.to_owned()),
                _ => {}
            }
            rest = next;
        }
        Some(challenge)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn challenges_are_read() {
        let challenge = Challenge::parse(
            r#"Bearer realm="https://auth.example/token",service="registry.example",scope="a,b""#,
        )
        .unwrap();
        assert_eq!(challenge.realm.as_deref(), Some("https://auth.example/token"));
        assert_eq!(challenge.service.as_deref(), Some("registry.example"));
        assert!(Challenge::parse("Basic realm=\"x\"").unwrap().realm.is_none());
        assert!(Challenge::parse("Negotiate").is_none());
    }

    #[test]
    fn the_next_page_stays_with_the_server() {
        let current = Url::parse("http://r.example:5000/v2/_catalog?n=2").unwrap();
        let next = next_page(&current, r#"</v2/_catalog?last=b&n=2>; rel="next""#);
        assert_eq!(next.as_deref(), Some("http://r.example:5000/v2/_catalog?last=b&n=2"));
        assert_eq!(next_page(&current, r#"<http://evil.example/v2/>; rel="next""#), None);
        assert_eq!(next_page(&current, "nonsense"), None);
    }
}
