//! A file becomes the next version of a dataset: its bytes go into the store, an event says so.
//!
//! Both can be repeated without harm: the blob has its digest for a name, the event's id is the dataset and that digest,
//! and the broker takes an event once.

use std::time::Duration;

use bytes::Bytes;
use serde_json::json;

use crate::event::{Event, hex};
use crate::store::{Digest, Reference, Store, StoreError, checked_name};

/// Who the command line is among the sources of events.
const SOURCE: &str = "/baton/cli";
/// Pauses between the attempts to deliver the event.
const PAUSES: [Duration; 5] = [
    Duration::from_millis(200),
    Duration::from_millis(400),
    Duration::from_millis(800),
    Duration::from_millis(1600),
    Duration::from_millis(3200),
];
/// For one attempt.
const TIMEOUT: Duration = Duration::from_secs(30);

/// What was submitted.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct Submitted {
    pub dataset: String,
    pub digest: Digest,
    /// Bytes.
    pub size: u64,
    /// The event's id, `DATASET@sha256:...`.
    pub event: String,
    /// The run that it begins.
    pub run: String,
}

/// Why nothing was submitted.
#[derive(Debug, thiserror::Error)]
pub enum SubmitError {
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error("{0} is no address to post events to: {1}")]
    BadSink(String, String),
    /// The file is in the store by now; the same call later goes on from there.
    #[error("the file is in the store, and its event could not be delivered to {sink}: {reason}")]
    Undelivered { sink: String, reason: String },
    #[error("{sink} refused the event: {status} {text}")]
    Refused { sink: String, status: u16, text: String },
}

/// Puts the bytes into the store and posts `dataset.updated`. `origin` says who the file is from. Delivery is tried again
/// after a broken connection, a time-out, a 5xx, 408 and 429, with the same id.
///
/// # Errors
/// See [`SubmitError`]. After [`SubmitError::Undelivered`] the call can be made again.
pub async fn submit(
    store: &Store,
    sink: &str,
    dataset: &str,
    file_name: &str,
    bytes: impl Into<Bytes>,
    origin: Option<&str>,
) -> Result<Submitted, SubmitError> {
    checked_name(dataset)?;
    let url = reqwest::Url::parse(sink)
        .map_err(|error| SubmitError::BadSink(sink.to_owned(), error.to_string()))?;
    let Reference { digest, size } = store.put(bytes).await?;
    let id = format!("{dataset}@{digest}");
    let run = hex(&[SOURCE.as_bytes(), id.as_bytes()]).chars().take(16).collect::<String>();
    let mut data = json!({ "dataset": dataset, "digest": digest, "size": size, "file": file_name });
    if let Some(origin) = origin {
        data["origin"] = origin.into();
    }
    let event = Event::new(SOURCE, &id, "dataset.updated", dataset, &run, data);
    deliver(&url, &event).await?;
    Ok(Submitted { dataset: dataset.to_owned(), digest, size, event: id, run })
}

async fn deliver(url: &reqwest::Url, event: &Event) -> Result<(), SubmitError> {
    let client = reqwest::Client::builder()
        .timeout(TIMEOUT)
        .build()
        .map_err(|error| SubmitError::Undelivered { sink: url.to_string(), reason: error.to_string() })?;
    let (headers, body) = event.to_http();
    let mut pauses = PAUSES.iter();
    loop {
        let answer = client.post(url.clone()).headers(headers.clone()).body(body.clone()).send().await;
        let reason = match answer {
            Ok(answer) if answer.status().is_success() => return Ok(()),
            Ok(answer) => {
                let status = answer.status().as_u16();
                let text: String = answer.text().await.unwrap_or_default().chars().take(500).collect();
                if !(status >= 500 || status == 408 || status == 429) {
                    return Err(SubmitError::Refused { sink: url.to_string(), status, text });
                }
                format!("{status} {text}")
            }
            Err(error) => chain(&error),
        };
        let Some(pause) = pauses.next() else {
            return Err(SubmitError::Undelivered { sink: url.to_string(), reason });
        };
        tokio::time::sleep(*pause).await;
    }
}

/// An error and its causes, without the address that the caller knows.
fn chain(error: &reqwest::Error) -> String {
    let mut text = String::new();
    let mut next = std::error::Error::source(error);
    while let Some(cause) = next {
        text = cause.to_string();
        next = cause.source();
    }
    if text.is_empty() { error.to_string() } else { text }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use axum::Router;
    use axum::extract::State;
    use axum::http::{HeaderMap, StatusCode};
    use axum::routing::post;

    use super::*;

    type Seen = Arc<Mutex<Vec<(Event, StatusCode)>>>;

    /// A broker that answers with these statuses in turn, then with 202; gives its address and what came.
    async fn broker(statuses: &[u16]) -> (String, Seen) {
        let seen = Seen::default();
        let statuses: Vec<StatusCode> =
            statuses.iter().map(|status| StatusCode::from_u16(*status).expect("a status")).collect();
        let take = move |State(seen): State<Seen>, headers: HeaderMap, body: Bytes| async move {
            let event = Event::from_http(&headers, &body).expect("an event");
            let mut seen = seen.lock().expect("unpoisoned");
            let status = statuses.get(seen.len()).copied().unwrap_or(StatusCode::ACCEPTED);
            seen.push((event, status));
            status
        };
        let app = Router::new().route("/", post(take)).with_state(Arc::clone(&seen));
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = format!("http://{}/", listener.local_addr().expect("an address"));
        tokio::spawn(async move { axum::serve(listener, app).await });
        (address, seen)
    }

    #[tokio::test]
    async fn the_file_is_in_the_store_before_the_event_says_so_and_a_failure_is_tried_again() {
        let store = Store::open("memory:///").expect("a store");
        let (sink, seen) = broker(&[503, 429]).await;
        let done = submit(&store, &sink, "iris", "iris.csv", "a,b\n1,2\n", Some("me")).await.expect("taken");
        let seen = seen.lock().expect("unpoisoned").clone();
        assert_eq!(seen.len(), 3, "twice refused for now, then taken");
        assert!(seen.iter().all(|(event, _)| event == &seen[0].0), "always the same event");
        let event = &seen[0].0;
        assert_eq!((event.source.as_str(), event.short_kind()), ("/baton/cli", Some("dataset.updated")));
        assert_eq!(event.id, format!("iris@{}", done.digest));
        assert_eq!((event.run(), event.subject.as_deref()), (done.run, Some("iris")));
        assert_eq!(
            event.object(),
            *json!({"dataset": "iris", "digest": done.digest, "size": 8, "file": "iris.csv", "origin": "me"})
                .as_object()
                .expect("an object")
        );
        assert_eq!(store.get(&done.digest, 100).await.expect("stored"), "a,b\n1,2\n");
    }

    #[tokio::test]
    async fn a_refusal_is_final_and_says_why() {
        let store = Store::open("memory:///").expect("a store");
        let (sink, seen) = broker(&[400]).await;
        let error = submit(&store, &sink, "iris", "iris.csv", "x", None).await.expect_err("refused");
        assert!(matches!(error, SubmitError::Refused { status: 400, .. }), "{error}");
        assert_eq!(seen.lock().expect("unpoisoned").len(), 1);
        for (sink, dataset) in [("no address", "iris"), (sink.as_str(), "../iris"), (sink.as_str(), "")] {
            assert!(submit(&store, sink, dataset, "iris.csv", "x", None).await.is_err(), "{sink} {dataset}");
        }
    }

    #[tokio::test]
    async fn without_a_broker_the_file_is_kept_and_the_error_says_so() {
        let store = Store::open("memory:///").expect("a store");
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let sink = format!("http://{}/", listener.local_addr().expect("an address"));
        drop(listener);
        let error = submit(&store, &sink, "iris", "iris.csv", "x", None).await.expect_err("nobody there");
        assert!(matches!(error, SubmitError::Undelivered { .. }), "{error}");
        assert!(error.to_string().contains("refused"), "{error}");
        store.get(&Digest::of(b"x"), 10).await.expect("stored");
    }
}
