//! One call of a function: the request, and what its answer means.
//!
//! Which answers are tried again is Knative's list (`kncloudevents/retries.go`): 5xx, 404, 408, 409, 429, no connection, a broken
//! one, none in time.

use std::time::Duration;

use baton_runner::error::chain;
use http::{HeaderMap, StatusCode};

use crate::event::{Event, EventError, MAX_EVENT};

/// Bytes of a failed answer that are kept: Knative's limit of 1024 for their base64 form.
const KEPT: usize = 768;

/// What came of an attempt.
#[derive(Debug)]
pub(crate) enum Outcome {
    Done {
        status: u16,
        reply: Option<Box<Event>>,
    },
    /// Try again later.
    Later(Failure),
    /// No use in trying again.
    Never(Failure),
}

/// Why an attempt failed.
#[derive(Debug, Default)]
pub(crate) struct Failure {
    pub(crate) text: String,
    /// The answer's, if there was one.
    pub(crate) status: Option<u16>,
    /// The beginning of the answer's body.
    pub(crate) body: Vec<u8>,
    /// The answer's `Retry-After`.
    pub(crate) asked: Option<Duration>,
}

impl Failure {
    pub(crate) fn new(text: impl Into<String>) -> Self {
        Self { text: text.into(), ..Self::default() }
    }
}

/// A client for functions: no proxy, no redirects, a connection for each call, because a function that is about to end may
/// close an idle one just when the next call is on its way.
///
/// # Errors
/// The client's own.
pub(crate) fn client() -> reqwest::Result<reqwest::Client> {
    reqwest::Client::builder()
        .no_proxy()
        .redirect(reqwest::redirect::Policy::none())
        .pool_max_idle_per_host(0)
        .connect_timeout(Duration::from_secs(10))
        .build()
}

/// Posts an event in binary mode and reads the answer, both within `timeout`.
pub(crate) async fn post(client: &reqwest::Client, url: &str, event: &Event, timeout: Duration) -> Answer {
    match tokio::time::timeout(timeout, exchange(client, url, event)).await {
        Ok(answer) => answer,
        Err(_) => {
            let text = format!("no answer within {} s", timeout.as_secs_f64());
            Answer { outcome: Outcome::Later(Failure::new(text)), end: End::TimedOut }
        }
    }
}

/// An outcome, and what it says about the instance that was called.
pub(crate) struct Answer {
    pub(crate) outcome: Outcome,
    pub(crate) end: End,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum End {
    /// It was spoken to.
    Exchanged,
    /// It may hang.
    TimedOut,
    /// It took no connection.
    Unreached,
}

async fn exchange(client: &reqwest::Client, url: &str, event: &Event) -> Answer {
    let exchanged = |outcome| Answer { outcome, end: End::Exchanged };
    let (headers, body) = event.to_http();
    let sent = client.post(url).headers(headers).header("prefer", "reply").body(body).send().await;
    let mut answer = match sent {
        Ok(answer) => answer,
        Err(error) if error.is_builder() => return exchanged(Outcome::Never(Failure::new(chain(&error)))),
        Err(error) => {
            let end = if error.is_connect() { End::Unreached } else { End::Exchanged };
            return Answer { outcome: Outcome::Later(Failure::new(chain(&error))), end };
        }
    };
    let (status, headers) = (answer.status(), answer.headers().clone());
    let mut body = Vec::new();
    loop {
        match answer.chunk().await {
            Ok(Some(chunk)) if body.len() + chunk.len() <= MAX_EVENT => body.extend_from_slice(&chunk),
            // It said what it had to say: no event.
            Ok(Some(_)) if status.is_success() && !says_event(&headers) => break,
            Ok(Some(_)) => {
                let text = format!("answered {status} with more than {MAX_EVENT} bytes");
                let failure = Failure { text, status: Some(status.as_u16()), ..Failure::default() };
                let judged = if is_retried(status) { Outcome::Later } else { Outcome::Never };
                return exchanged(judged(failure));
            }
            Ok(None) => break,
            Err(error) => return exchanged(Outcome::Later(Failure::new(chain(&error)))),
        }
    }
    exchanged(judge(status, &headers, &body))
}

fn is_retried(status: StatusCode) -> bool {
    status.is_server_error() || matches!(status.as_u16(), 404 | 408 | 409 | 429)
}

/// What an answer means.
pub(crate) fn judge(status: StatusCode, headers: &HeaderMap, body: &[u8]) -> Outcome {
    if status.is_success() {
        return match reply_in(headers, body) {
            Ok(reply) => Outcome::Done { status: status.as_u16(), reply: reply.map(Box::new) },
            Err(error) => Outcome::Never(Failure {
                text: format!("answered {status} with an event that cannot be taken: {error}"),
                status: Some(status.as_u16()),
                body: body[..body.len().min(KEPT)].to_vec(),
                asked: None,
            }),
        };
    }
    let beginning = String::from_utf8_lossy(&body[..body.len().min(KEPT)]).trim().to_owned();
    let failure = Failure {
        text: if beginning.is_empty() {
            format!("answered {status}")
        } else {
            format!("answered {status}: {beginning}")
        },
        status: Some(status.as_u16()),
        body: body[..body.len().min(KEPT)].to_vec(),
        asked: retry_after(headers),
    };
    if is_retried(status) { Outcome::Later(failure) } else { Outcome::Never(failure) }
}

/// The one event of an answer, if it has one. Anything else that a function says with 2xx is no event.
fn reply_in(headers: &HeaderMap, body: &[u8]) -> Result<Option<Event>, EventError> {
    match Event::from_http(headers, body) {
        Ok(event) => Ok(Some(event)),
        // A batch, for one, is meant as events and must not be lost without a word.
        Err(EventError::NoEvent(text)) if says_event(headers) => Err(EventError::Malformed(text)),
        Err(EventError::NoEvent(_)) => Ok(None),
        Err(error) => Err(error),
    }
}

fn says_event(headers: &HeaderMap) -> bool {
    headers.contains_key("ce-specversion")
        || headers
            .get(http::header::CONTENT_TYPE)
            .and_then(|value| value.to_str().ok())
            .is_some_and(|value| value.trim().to_ascii_lowercase().starts_with("application/cloudevents"))
}

/// Seconds, or a date (RFC 9110, section 10.2.3).
fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    let text = headers.get(http::header::RETRY_AFTER)?.to_str().ok()?.trim();
    if let Ok(seconds) = text.parse() {
        return Some(Duration::from_secs(seconds));
    }
    let date = jiff::fmt::rfc2822::parse(text).ok()?.timestamp();
    date.duration_since(jiff::Timestamp::now()).try_into().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(pairs: &[(&str, &str)]) -> HeaderMap {
        pairs
            .iter()
            .map(|(name, value)| {
                (http::HeaderName::try_from(*name).unwrap(), http::HeaderValue::try_from(*value).unwrap())
            })
            .collect()
    }

    fn name(outcome: &Outcome) -> &'static str {
        match outcome {
            Outcome::Done { reply: None, .. } => "done",
            Outcome::Done { reply: Some(_), .. } => "reply",
            Outcome::Later(_) => "later",
            Outcome::Never(_) => "never",
        }
    }

    #[test]
    fn statuses_mean_what_they_mean_to_knative() {
        for (status, expected) in [
            (200, "done"),
            (202, "done"),
            (204, "done"),
            (301, "never"),
            (304, "never"),
            (400, "never"),
            (401, "never"),
            (404, "later"),
            (408, "later"),
            (409, "later"),
            (413, "never"),
            (422, "never"),
            (429, "later"),
            (500, "later"),
            (501, "later"),
            (503, "later"),
        ] {
            let outcome = judge(StatusCode::from_u16(status).unwrap(), &HeaderMap::new(), b"");
            assert_eq!(name(&outcome), expected, "{status}");
        }
    }

    #[test]
    fn answers_hold_one_event_or_none() {
        let binary = [("ce-specversion", "1.0"), ("ce-id", "1"), ("ce-source", "/f"), ("ce-type", "t")];
        let structured = [("content-type", "application/cloudevents+json")];
        let batch = [("content-type", "application/cloudevents-batch+json")];
        let whole = br#"{"specversion":"1.0","id":"1","source":"/f","type":"t"}"#;
        type Headers<'a> = &'a [(&'a str, &'a str)];
        let cases: [(Headers, &[u8], &str); 7] = [
            (&[], b"OK", "done"),
            (&[("content-type", "application/json")], b"{}", "done"),
            (&binary, b"", "reply"),
            (&binary[..3], b"", "never"),
            (&structured, whole, "reply"),
            (&structured, &whole[1..], "never"),
            (&batch, b"[]", "never"),
        ];
        for (given, body, expected) in cases {
            let outcome = judge(StatusCode::OK, &headers(given), body);
            assert_eq!(
                name(&outcome),
                expected,
                "{given:?} {:?}",
                String::from_utf8_lossy(&body[..body.len().min(60)])
            );
        }
    }

    #[test]
    fn retry_after_is_seconds_or_a_date() {
        let asked =
            |value| match judge(StatusCode::SERVICE_UNAVAILABLE, &headers(&[("retry-after", value)]), b"") {
                Outcome::Later(failure) => failure.asked,
                other => panic!("{other:?}"),
            };
        assert_eq!(asked("7"), Some(Duration::from_secs(7)));
        assert_eq!(asked("soon"), None);
        assert_eq!(asked("Wed, 21 Oct 2015 07:28:00 GMT"), None, "the past asks for nothing");
        assert!(asked("Fri, 01 Jan 2100 00:00:00 GMT").is_some());
    }
}
