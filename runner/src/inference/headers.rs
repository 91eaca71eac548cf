//! What headers say, whichever protocol they belong to: who answered, who must answer, until when.

use std::time::Duration;

use http::{HeaderMap, HeaderName, HeaderValue};

use super::infer::Target;
use crate::config::Limits;
use crate::requestlog::RequestId;

const VERSION_HEADER: &str = "baton-model-version";
const GENERATION_HEADER: &str = "baton-generation";
const DIGEST_HEADER: &str = "baton-digest";
/// What a request is called: sent by callers that want to choose, answered if the model has a request log.
const REQUEST_ID_HEADER: &str = "baton-request-id";
/// A bundle that must be the one that answers.
pub(super) const REQUIRE_DIGEST_HEADER: &str = "baton-require-digest";

/// Who answered: version, generation, digest, as headers and as response parameters; and what the request is called, if
/// the model has a request log.
pub(super) fn signed_by<'a>(
    target: &'a Target,
    request_id: Option<&'a RequestId>,
) -> impl Iterator<Item = (&'static str, &'a str)> {
    let identity = &target.version().identity;
    let signed = [
        (VERSION_HEADER, &*identity.number_text),
        (GENERATION_HEADER, &*target.served().generation_text),
        (DIGEST_HEADER, &*identity.digest_text),
    ];
    signed.into_iter().chain(request_id.map(|id| (REQUEST_ID_HEADER, id.as_str())))
}

pub(super) fn sign_headers(target: &Target, request_id: Option<&RequestId>, headers: &mut HeaderMap) {
    for (name, value) in signed_by(target, request_id) {
        // Digits and hex digits are always a header value. A caller's name beyond ASCII is none that clients agree on, and
        // breaks gRPC's metadata; it stands in the body.
        if let (true, Ok(value)) = (value.is_ascii(), HeaderValue::from_str(value)) {
            headers.insert(HeaderName::from_static(name), value);
        }
    }
}

/// What a gRPC call's metadata says about it.
#[derive(Default, Clone)]
pub(super) struct CallOptions {
    pub require_digest: Option<String>,
    pub timeout: Option<Duration>,
    pub request_id: Option<RequestId>,
}

impl CallOptions {
    pub(super) fn read(headers: &HeaderMap, limits: &Limits) -> Self {
        let text = |name| headers.get(name).and_then(|value| value.to_str().ok());
        Self {
            require_digest: text(REQUIRE_DIGEST_HEADER).map(str::to_owned),
            timeout: text("grpc-timeout").and_then(parse_timeout),
            request_id: named_by(headers, limits),
        }
    }
}

/// What the caller calls its request.
pub(super) fn named_by(headers: &HeaderMap, limits: &Limits) -> Option<RequestId> {
    let text = headers.get(REQUEST_ID_HEADER)?.to_str().ok()?;
    RequestId::given(text, limits)
}

/// `grpc-timeout`: up to eight digits and a unit, as the gRPC protocol over HTTP/2 defines it.
fn parse_timeout(text: &str) -> Option<Duration> {
    let (digits, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
    let value: u64 = (digits.len() <= 8).then(|| digits.parse().ok())??;
    Some(match unit {
        "H" => Duration::from_secs(value * 3600),
        "M" => Duration::from_secs(value * 60),
        "S" => Duration::from_secs(value),
        "m" => Duration::from_millis(value),
        "u" => Duration::from_micros(value),
        "n" => Duration::from_nanos(value),
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn timeouts_are_read() {
        for (text, expected) in [
            ("1S", Some(Duration::from_secs(1))),
            ("250m", Some(Duration::from_millis(250))),
            ("99999999H", Some(Duration::from_secs(99_999_999 * 3600))),
            ("", None),
            ("S", None),
            ("1", None),
            ("999999999S", None),
            ("-1S", None),
            ("1ü", None),
        ] {
            assert_eq!(parse_timeout(text), expected, "{text:?}");
        }
    }
}
