//! A file becomes the next version of a dataset: its bytes go into the store, an event says so.
//!
//! Both can be repeated without harm: the blob has its digest for a name, the event's id is the dataset and that digest,
//! and the broker takes an event once.

use std::time::Duration;

use baton_runner::error::root;
use bytes::Bytes;
use serde_json::{Value, json};

use crate::event::{Data, Event, RUN, hex};
use crate::store::{Digest, Reference, Store, StoreError, checked_name};

/// One source for all files, whichever way they come: the same data are the same event.
const SOURCE: &str = "/baton/datasets";
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

/// Where events are posted.
#[derive(Debug, Clone)]
pub struct Sink {
    url: reqwest::Url,
    token: Option<String>,
}

impl Sink {
    /// With the bearer token of a broker that wants one.
    ///
    /// # Errors
    /// [`SubmitError::BadSink`].
    pub fn new(url: &str, token: Option<String>) -> Result<Self, SubmitError> {
        let parsed = reqwest::Url::parse(url)
            .map_err(|error| SubmitError::BadSink(url.to_owned(), error.to_string()))?;
        Ok(Self { url: parsed, token })
    }
}

/// A file to be submitted.
#[derive(Debug, Clone)]
pub struct File<'a> {
    pub dataset: &'a str,
    pub name: &'a str,
    pub bytes: Bytes,
    /// Who it is from.
    pub origin: Option<&'a str>,
    /// An event of its own, also if the same bytes were submitted before.
    pub again: bool,
}

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
    #[error(
        "the file is in the store, and its event could not be delivered to {sink}: {reason}; is the pipeline running? \
         (baton pipeline serve)"
    )]
    Undelivered { sink: String, reason: String },
    #[error("{sink} refused the event: {status} {text}")]
    Refused { sink: String, status: u16, text: String },
}

/// Puts the bytes into the store and posts `dataset.updated`. Delivery is tried again after a broken connection, a time-out, a 5xx,
/// 404, 408, 409 and 429, with the same id.
///
/// # Errors
/// See [`SubmitError`]. After [`SubmitError::Undelivered`] the call can be made again.
pub async fn submit(store: &Store, sink: &Sink, file: File<'_>) -> Result<Submitted, SubmitError> {
    let File { dataset, name, bytes, origin, again } = file;
    checked_name(dataset)?;
    let reference = store.put(bytes).await?;
    let mut event = updated(dataset, name, &reference, origin);
    if again {
        event.id = format!("{}+{}", event.id, uuid::Uuid::new_v4().simple());
        event.extensions.remove(RUN);
        let mut data = event.object();
        data.insert("again".to_owned(), true.into());
        event.data = Data::Json(Value::Object(data).into());
        event.extensions.insert(RUN.to_owned(), event.run());
    }
    deliver(sink, &event).await?;
    let Reference { digest, size } = reference;
    Ok(Submitted { dataset: dataset.to_owned(), digest, size, run: event.run(), event: event.id })
}

/// `dataset.updated` for a file that is in the store. Its id is the dataset and the digest, so the same data start nothing twice.
pub fn updated(dataset: &str, file: &str, reference: &Reference, origin: Option<&str>) -> Event {
    let Reference { digest, size } = reference;
    let id = format!("{dataset}@{digest}");
    let run = hex(&[SOURCE.as_bytes(), id.as_bytes()])[..16].to_owned();
    let mut data = json!({ "dataset": dataset, "digest": digest, "size": size, "file": file });
    if let Some(origin) = origin {
        data["origin"] = origin.into();
    }
    Event::new(SOURCE, &id, "dataset.updated", dataset, &run, data)
}

async fn deliver(sink: &Sink, event: &Event) -> Result<(), SubmitError> {
    let address = || sink.url.to_string();
    let client = reqwest::Client::builder()
        .no_proxy()
        .timeout(TIMEOUT)
        .build()
        .map_err(|error| SubmitError::Undelivered { sink: address(), reason: error.to_string() })?;
    let (headers, body) = event.to_http();
    let mut pauses = PAUSES.iter();
    loop {
        let request = client.post(sink.url.clone()).headers(headers.clone()).body(body.clone());
        let request = match &sink.token {
            Some(token) => request.bearer_auth(token),
            None => request,
        };
        let reason = match request.send().await {
            Ok(answer) if answer.status().is_success() => return Ok(()),
            Ok(answer) => {
                let status = answer.status().as_u16();
                let text: String = answer.text().await.unwrap_or_default().chars().take(500).collect();
                if !(status >= 500 || [404, 408, 409, 429].contains(&status)) {
                    return Err(SubmitError::Refused { sink: address(), status, text });
                }
                format!("{status} {text}")
            }
            Err(error) => root(&error),
        };
        let Some(pause) = pauses.next() else {
            return Err(SubmitError::Undelivered { sink: address(), reason });
        };
        tokio::time::sleep(*pause).await;
    }
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

    fn to(sink: &str) -> Sink {
        Sink::new(sink, None).expect("an address")
    }

    fn file<'a>(dataset: &'a str, text: &'static str) -> File<'a> {
        File {
            dataset,
            name: "iris.csv",
            bytes: Bytes::from_static(text.as_bytes()),
            origin: None,
            again: false,
        }
    }

    #[tokio::test]
    async fn the_file_is_in_the_store_before_the_event_says_so_and_a_failure_is_tried_again() {
        let store = Store::open("memory:///").expect("a store");
        let (sink, seen) = broker(&[503, 429]).await;
        let file = File { origin: Some("me"), ..file("iris", "a,b\n1,2\n") };
        let done = submit(&store, &to(&sink), file).await.expect("taken");
        let seen = seen.lock().expect("unpoisoned").clone();
        assert_eq!(seen.len(), 3, "twice refused for now, then taken");
        assert!(seen.iter().all(|(event, _)| event == &seen[0].0), "always the same event");
        let event = &seen[0].0;
        assert_eq!((event.source.as_str(), event.short_kind()), (SOURCE, Some("dataset.updated")));
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

    #[test]
    fn the_same_data_is_the_same_event_whatever_the_file_is_called() {
        let reference = Reference { digest: Digest::of(b"1"), size: 1 };
        let (one, other) =
            (updated("iris", "a.csv", &reference, Some("inbox")), updated("iris", "b.csv", &reference, None));
        assert_eq!((&one.source, &one.id, one.run()), (&other.source, &other.id, other.run()));
        assert_ne!(one.id, updated("wine", "a.csv", &reference, None).id);
        let mut bare = one.clone();
        bare.extensions.clear();
        assert_eq!(bare.run(), one.run(), "the run follows from source and id");
    }

    #[tokio::test]
    async fn a_refusal_is_final_and_says_why() {
        let store = Store::open("memory:///").expect("a store");
        let (sink, seen) = broker(&[400]).await;
        let error = submit(&store, &to(&sink), file("iris", "x")).await.expect_err("refused");
        assert!(matches!(error, SubmitError::Refused { status: 400, .. }), "{error}");
        assert_eq!(seen.lock().expect("unpoisoned").len(), 1);
        for dataset in ["../iris", ""] {
            assert!(submit(&store, &to(&sink), file(dataset, "x")).await.is_err(), "{dataset}");
        }
        assert!(matches!(Sink::new("no address", None), Err(SubmitError::BadSink(..))));
    }

    #[tokio::test]
    async fn without_a_broker_the_file_is_kept_and_the_error_says_so() {
        let store = Store::open("memory:///").expect("a store");
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let sink = format!("http://{}/", listener.local_addr().expect("an address"));
        drop(listener);
        let error = submit(&store, &to(&sink), file("iris", "x")).await.expect_err("nobody there");
        assert!(matches!(error, SubmitError::Undelivered { .. }), "{error}");
        assert!(error.to_string().contains("refused"), "{error}");
        store.get(&Digest::of(b"x"), 10).await.expect("stored");
    }
}
