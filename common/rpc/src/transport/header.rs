//! The first frame of every message.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::call::{CallContext, CallError, ErrorKind, RemoteError, decode, encode};

/// What a message is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Kind {
    /// Asks for a call; the body is the method's request.
    Request,
    /// A call's result; the body is the method's reply.
    Reply,
    /// A call's failure; the body is a [`RemoteError`].
    Error,
    /// The caller no longer waits; the body is empty. Not answered.
    Cancel,
    /// The server is about to close the connection; the body is empty. The client answers
    /// with the same, which shows that it has read every answer before.
    Bye,
}

/// Says which call a message belongs to, and, in a request, how to carry it out. Fields
/// that are absent have their defaults, so that one can be added without a new version.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Header {
    /// Names the call within its connection.
    pub id: u64,
    /// What the message is.
    pub kind: Kind,
    /// Requests only: the method.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub method: String,
    /// Requests only: see [`CallContext::epoch`].
    #[serde(default, skip_serializing_if = "is_zero")]
    pub epoch: u64,
    /// Requests only: see [`CallContext::request_id`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub request_id: Option<String>,
    /// Requests only: how long the caller waits, in milliseconds.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub timeout_ms: u64,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes fields by reference")]
fn is_zero(value: &u64) -> bool {
    *value == 0
}

impl Header {
    /// The header of a request.
    pub fn request(id: u64, context: &CallContext, method: &str, timeout: Duration) -> Self {
        Self {
            id,
            kind: Kind::Request,
            method: method.to_owned(),
            epoch: context.epoch,
            request_id: context.request_id.clone(),
            // At least one, for zero is not written and would read as "no limit".
            timeout_ms: u64::try_from(timeout.as_millis()).unwrap_or(u64::MAX).max(1),
        }
    }

    /// The header of anything but a request.
    pub fn plain(id: u64, kind: Kind) -> Self {
        Self { id, kind, method: String::new(), epoch: 0, request_id: None, timeout_ms: 0 }
    }

    /// The header's bytes.
    pub fn encode(&self) -> Vec<u8> {
        encode(self)
    }

    /// The reverse of [`Header::encode`].
    pub fn decode(bytes: &[u8]) -> Result<Self, String> {
        decode(bytes)
    }

    /// What the served code learns about the call.
    pub fn context(&self, peer: Option<String>) -> CallContext {
        CallContext { epoch: self.epoch, request_id: self.request_id.clone(), peer }
    }

    /// How long the work may take; `None` when the caller named no limit.
    pub fn timeout(&self) -> Option<Duration> {
        (self.timeout_ms > 0).then(|| Duration::from_millis(self.timeout_ms))
    }
}

/// The frames of an answer.
pub(super) fn encode_answer(id: u64, result: Result<Vec<u8>, RemoteError>) -> (Vec<u8>, Vec<u8>) {
    match result {
        Ok(body) => (Header::plain(id, Kind::Reply).encode(), body),
        Err(error) => (Header::plain(id, Kind::Error).encode(), encode(&error)),
    }
}

/// Reads the body of an [`Kind::Error`] message. A kind of error that this side does not
/// know (the peer is newer) becomes [`ErrorKind::Internal`] and keeps its name in the text.
pub(super) fn decode_error(body: &[u8]) -> CallError {
    #[derive(Deserialize)]
    struct Unknown {
        kind: String,
        message: String,
    }
    if let Ok(error) = decode::<RemoteError>(body) {
        return CallError::Remote(error);
    }
    match decode::<Unknown>(body) {
        Ok(Unknown { kind, message }) => {
            CallError::Remote(RemoteError::new(ErrorKind::Internal, format!("{kind}: {message}")))
        }
        Err(error) => CallError::Malformed(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request() -> Header {
        let context =
            CallContext { epoch: 7, request_id: Some("req-1".into()), peer: Some("nobody".into()) };
        Header::request(258, &context, "create_kernels", Duration::from_secs(10))
    }

    /// The bytes of headers as they are on the wire. A peer of the previous release must
    /// read them: when this fails, a new field with a default is fine (accept the new bytes),
    /// anything else needs a way for both releases to talk.
    #[test]
    fn headers_have_their_golden_bytes() {
        let golden: [(Header, &[u8]); 4] = [
            (
                request(),
                b"\x86\xa2id\xcd\x01\x02\xa4kind\xa7request\xa6method\xaecreate_kernels\
                  \xa5epoch\x07\xaarequest_id\xa5req-1\xaatimeout_ms\xcd\x27\x10",
            ),
            (Header::plain(258, Kind::Reply), b"\x82\xa2id\xcd\x01\x02\xa4kind\xa5reply"),
            (Header::plain(1, Kind::Error), b"\x82\xa2id\x01\xa4kind\xa5error"),
            (Header::plain(1, Kind::Cancel), b"\x82\xa2id\x01\xa4kind\xa6cancel"),
        ];
        for (header, bytes) in golden {
            assert_eq!(
                header.encode().escape_ascii().to_string(),
                bytes.escape_ascii().to_string()
            );
            assert_eq!(Header::decode(bytes).unwrap(), header);
        }
        let (_, error) = encode_answer(
            1,
            Err(RemoteError::new(ErrorKind::KernelNotFound, "there is no kernel 5 here")),
        );
        assert_eq!(
            error.escape_ascii().to_string(),
            b"\x82\xa4kind\xaeKernelNotFound\xa7message\xb9there is no kernel 5 here"
                .escape_ascii()
                .to_string()
        );
    }

    #[test]
    fn the_peer_name_is_not_on_the_wire() {
        let bytes = request().encode();
        assert!(!bytes.windows(6).any(|window| window == b"nobody"));
        let context = Header::decode(&bytes).unwrap().context(None);
        assert_eq!(context, CallContext { epoch: 7, request_id: Some("req-1".into()), peer: None });
    }

    #[test]
    fn fields_of_a_newer_peer_are_skipped() {
        let newer = b"\x83\xa2id\x01\xa4kind\xa6cancel\xa5shiny\x93\x01\x02\x03";
        assert_eq!(Header::decode(newer).unwrap(), Header::plain(1, Kind::Cancel));
    }

    #[test]
    fn an_unknown_kind_of_error_keeps_its_name_and_message() {
        let body = b"\x82\xa4kind\xa8TooShiny\xa7message\xa4oops";
        assert!(matches!(
            decode_error(body),
            CallError::Remote(RemoteError { kind: ErrorKind::Internal, message })
                if message == "TooShiny: oops"
        ));
        assert!(matches!(decode_error(b"\xc1"), CallError::Malformed(_)));
    }
}
