//! `fn sweep`: turns a training that never answered into `training.failed`, at each tick of a timer.
//!
//! It asks the records, which every event reaches, and remembers nothing. Its answer is the reply to the event after which
//! nothing came, so its id follows from that event: two ticks, or two sweeps, tell of the same loss once.

use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};

use super::{Call, Context, Failure};
use crate::event::{Event, TYPE_PREFIX};

/// What Knative's PingSource sends.
const TICK: &str = "dev.knative.sources.ping";
/// A day, as long as any training of the examples by far.
const DEADLINE_SECONDS: u64 = 86_400;
const PATIENCE: Duration = Duration::from_secs(30);

/// Where to look and how long to wait for a training.
#[derive(Debug, Clone)]
struct Settings {
    /// Address below which `v1/runs` is.
    records: url::Url,
    deadline: Duration,
}

impl Settings {
    /// `BATON_HISTORY_URL`, else `K_SINK`, which is the engine's own on one machine; `BATON_TRAINING_DEADLINE`.
    fn of_environment() -> Result<Self, Failure> {
        let variable = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
        let address = variable("BATON_HISTORY_URL").or_else(|| variable("K_SINK"));
        let address = address.unwrap_or_else(|| "http://127.0.0.1:8090".to_owned());
        let records = url::Url::parse(&address)
            .map_err(|error| Failure::Never(format!("BATON_HISTORY_URL: {address:?} is no URL: {error}")))?;
        let deadline = match variable("BATON_TRAINING_DEADLINE") {
            Some(text) => text.parse().map_err(|_| {
                Failure::Never(format!("BATON_TRAINING_DEADLINE: {text:?} is no number of seconds"))
            })?,
            None => DEADLINE_SECONDS,
        };
        Ok(Self { records, deadline: Duration::from_secs(deadline) })
    }

    fn below(&self, path: &[&str]) -> url::Url {
        let mut url = self.records.clone();
        if let Ok(mut segments) = url.path_segments_mut() {
            segments.pop_if_empty().extend(path);
        }
        url
    }
}

/// Answers `training.failed` for the run that is lost the longest, if there is one; one at each tick.
pub(super) fn sweep(context: Arc<Context>, event: Event) -> Call {
    Box::pin(async move {
        if event.kind != TICK {
            return Ok(None);
        }
        lost(&context.name, &Settings::of_environment()?).await
    })
}

async fn lost(function: &str, settings: &Settings) -> Result<Option<Event>, Failure> {
    let http = reqwest::Client::builder()
        .no_proxy()
        .timeout(PATIENCE)
        .build()
        .map_err(|error| Failure::Later(error.to_string()))?;
    let seconds = settings.deadline.as_secs();
    let filter = format!("state in (\"training\", \"validated\") and since < -{seconds}s");
    let query = [("where", filter.as_str()), ("sort", "since"), ("limit", "1")];
    let found = ask(http.get(settings.below(&["v1", "runs"])).query(&query)).await?;
    let Some(name) = found["runs"][0]["run"].as_str() else { return Ok(None) };
    let run = ask(http.get(settings.below(&["v1", "runs", name]))).await?;
    answer(function, name, &found["runs"][0], &run["events"], settings.deadline)
}

async fn ask(request: reqwest::RequestBuilder) -> Result<Value, Failure> {
    let asked = async { request.send().await?.error_for_status()?.json().await };
    asked.await.map_err(|error| Failure::Later(format!("the records do not answer: {error}")))
}

/// The reply to the last event of the run that a training should have followed.
fn answer(
    function: &str,
    name: &str,
    run: &Value,
    events: &Value,
    deadline: Duration,
) -> Result<Option<Event>, Failure> {
    let (kind, model) = match run["state"].as_str() {
        Some("training") => ("training.started", run["model"].as_str()),
        _ => ("dataset.validated", None),
    };
    let is_last = |event: &&Value| {
        event["type"] == format!("{TYPE_PREFIX}{kind}.v1")
            && model.is_none_or(|model| {
                event["data"]["model"].as_str().or(event["subject"].as_str()) == Some(model)
            })
    };
    let last = events
        .as_array()
        .into_iter()
        .flatten()
        .filter(is_last)
        .max_by_key(|event| event["time"].as_str().and_then(|time| time.parse::<jiff::Timestamp>().ok()));
    let Some(last) = last else { return Ok(None) };
    let last = Event::from_json(last.to_string().as_bytes())
        .map_err(|error| Failure::Never(format!("the run {name} cannot be answered: {error}")))?;
    let data = json!({
        "run": name,
        "model": model,
        "dataset": run["dataset"]["name"],
        "dataset_digest": run["dataset"]["digest"],
        "reason": "lost",
        "error": format!("no answer within {} s after {kind}", deadline.as_secs()),
        "cost": { "cpu_s": 0.0, "wall_s": 0.0, "max_rss_mb": 0.0 },
    });
    let subject = model.or(run["dataset"]["name"].as_str()).unwrap_or(name);
    let mut failed = last.reply(function, "training.failed", subject, data);
    failed.extensions.insert(crate::event::RUN.to_owned(), name.to_owned());
    Ok(Some(failed))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::records::api::routes_of;
    use crate::records::{Source, create_tables, insert};
    use std::sync::Mutex;

    /// Records with these events behind an address.
    async fn records(events: &[Event]) -> (Arc<Mutex<rusqlite::Connection>>, Settings) {
        let mut connection = rusqlite::Connection::open_in_memory().unwrap();
        create_tables(&connection).unwrap();
        let transaction = connection.transaction().unwrap();
        for event in events {
            insert(&transaction, event, None).unwrap();
        }
        transaction.commit().unwrap();
        let connection = Arc::new(Mutex::new(connection));
        let routes = routes_of(Source::shared(connection.clone()));
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let records = format!("http://{}", listener.local_addr().unwrap());
        tokio::spawn(async move { axum::serve(listener, routes).await });
        (connection, Settings { records: records.parse().unwrap(), deadline: Duration::from_secs(3600) })
    }

    fn event(kind: &str, run: &str, model: &str, minutes_ago: i64) -> Event {
        let data = json!({ "model": model, "dataset": "digits", "dataset_digest": "sha256:00", "digest": "sha256:00" });
        let subject = if kind.starts_with("dataset") { "digits" } else { model };
        let mut event = Event::new("/test", &format!("{kind}{run}{model}"), kind, subject, run, data);
        let time = jiff::Timestamp::now() - jiff::SignedDuration::from_mins(minutes_ago);
        event.time = Some(time.to_string());
        event
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn lost_trainings_are_told_once_each_the_oldest_first_until_none_is_left() {
        let (connection, settings) = records(&[
            event("training.started", "young", "iris", 30),
            event("training.started", "done", "iris", 500),
            event("training.finished", "done", "iris", 490),
            event("training.started", "second", "iris", 100),
            event("dataset.validated", "first \"'/?#ü", "", 300),
            event("dataset.validated", "two", "", 90),
            event("training.started", "two", "iris", 80),
            event("training.started", "two", "wine", 70),
            event("training.failed", "two", "iris", 60),
        ])
        .await;
        let mut told = Vec::new();
        while let Some(failed) = lost("sweep", &settings).await.unwrap() {
            let again = lost("sweep", &settings).await.unwrap().unwrap();
            assert_eq!((&again.id, &again.source), (&failed.id, &failed.source), "until it is recorded");
            let data = failed.object();
            assert_eq!(data["reason"], "lost");
            assert_eq!(data["dataset"], "digits");
            assert_eq!(failed.kind, "dev.baton.training.failed.v1");
            told.push(format!("{} {}", failed.run(), data["model"].as_str().unwrap_or("-")));
            let mut connection = connection.lock().unwrap();
            let transaction = connection.transaction().unwrap();
            assert!(insert(&transaction, &failed, None).unwrap().is_some());
            transaction.commit().unwrap();
            assert!(told.len() < 10);
        }
        assert_eq!(told, ["first \"'/?#ü -", "second iris", "two wine"]);
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn records_that_do_not_answer_are_asked_again_later() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let records = format!("http://{}", listener.local_addr().unwrap());
        drop(listener);
        let settings = Settings { records: records.parse().unwrap(), deadline: Duration::from_secs(1) };
        assert!(matches!(lost("sweep", &settings).await, Err(Failure::Later(_))));
    }
}
