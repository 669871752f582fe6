//! API versions: which we speak, and which a request asks for.

use warp::http::HeaderMap;

use super::problem::Problem;

/// A version: major number and date.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct ApiVersion {
    /// `7` of `v7.20230615`.
    pub major: u32,
    /// `20230615` of `v7.20230615`.
    pub date: &'static str,
}

/// Every version a client may name, oldest first.
pub const ACCEPTED: &[ApiVersion] = &[
    ApiVersion { major: 4, date: "20181215" },
    ApiVersion { major: 4, date: "20190115" },
    ApiVersion { major: 4, date: "20190315" },
    ApiVersion { major: 4, date: "20190615" },
    ApiVersion { major: 5, date: "20191215" },
    ApiVersion { major: 6, date: "20200815" },
    ApiVersion { major: 6, date: "20210815" },
    ApiVersion { major: 6, date: "20220315" },
    ApiVersion { major: 6, date: "20220615" },
    ApiVersion { major: 6, date: "20230315" },
    ApiVersion { major: 7, date: "20230615" },
];

/// What a request without the header means, so that public routes answer to plain browsers.
const ASSUMED: ApiVersion = ApiVersion { major: 5, date: "20191215" };

/// The header that names the version; its older spelling.
pub const HEADERS: [&str; 2] = ["x-backendai-version", "x-sorna-version"];

/// The version a request asks for.
///
/// # Errors
/// One we do not know.
pub fn negotiate(headers: &HeaderMap) -> Result<ApiVersion, Problem> {
    let Some(value) = HEADERS.iter().find_map(|name| headers.get(*name)) else {
        return Ok(ASSUMED);
    };
    let text = value.to_str().unwrap_or_default();
    ACCEPTED
        .iter()
        .find(|v| {
            text.strip_prefix('v')
                .and_then(|rest| rest.split_once('.'))
                .is_some_and(|(major, date)| date == v.date && major.parse() == Ok(v.major))
        })
        .copied()
        .ok_or_else(Problem::unsupported_version)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ask(name: &'static str, value: &'static str) -> Result<ApiVersion, Problem> {
        let mut headers = HeaderMap::new();
        headers.insert(name, value.parse().unwrap());
        negotiate(&headers)
    }

    #[test]
    fn known_versions_pass_in_either_header_and_others_do_not() {
        assert_eq!(ask("x-backendai-version", "v7.20230615").unwrap(), ACCEPTED[10]);
        assert_eq!(ask("x-sorna-version", "v4.20181215").unwrap(), ACCEPTED[0]);
        assert_eq!(negotiate(&HeaderMap::new()).unwrap(), ASSUMED);
        for text in ["v7.20230616", "7.20230615", "v8.20230615", "", "v7"] {
            assert!(ask("x-backendai-version", text).is_err(), "{text}");
        }
    }

    #[test]
    fn the_newest_is_the_one_we_announce() {
        let newest = ACCEPTED[ACCEPTED.len() - 1];
        assert_eq!((newest.major, newest.date), crate::API_VERSION);
    }
}
