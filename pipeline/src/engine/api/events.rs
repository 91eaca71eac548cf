//! `GET /v1/events`: what has come, in the order of arrival, and what is to come.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::{Query, State};
use axum::response::sse::{KeepAlive, Sse};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use futures_util::stream::{self, Stream};
use http::HeaderMap;
use http::header::{ACCEPT, CONTENT_TYPE};
use rusqlite::{Connection, params};
use serde::Deserialize;
use serde_json::json;

use super::super::Engine;

const DEFAULT: u32 = 100;
const MOST: u32 = 1000;
/// Bytes of one answer: it ends early rather than become much larger.
const ENOUGH: usize = 4 << 20;
/// What is read at once for somebody who follows, and held as long as he does not read it.
const BATCH: u32 = 50;
const FOLLOWED: usize = 64 << 10;
const KEEP_ALIVE: Duration = Duration::from_secs(30);

pub(super) fn routes() -> Router<Arc<Engine>> {
    Router::new().route("/v1/events", get(list))
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct Wanted {
    run: Option<String>,
    #[serde(rename = "type")]
    kind: Option<String>,
    #[serde(default)]
    after: i64,
    limit: Option<u32>,
}

/// An event as it is listed: `{"seq", "arrived", "run", "cause", "event"}`, the last in the JSON event format.
#[derive(Debug)]
struct Listed {
    seq: i64,
    kind: String,
    text: String,
}

async fn list(
    State(engine): State<Arc<Engine>>,
    headers: HeaderMap,
    Query(wanted): Query<Wanted>,
) -> Response {
    let is_stream = headers
        .get(ACCEPT)
        .and_then(|value| value.to_str().ok())
        .is_some_and(|value| value.contains("text/event-stream"));
    if is_stream {
        let mut wanted = wanted;
        let last = headers.get("last-event-id").and_then(|value| value.to_str().ok()?.parse().ok());
        wanted.after = last.unwrap_or(wanted.after);
        let keep_alive = KeepAlive::new().interval(KEEP_ALIVE);
        return Sse::new(follow(engine, wanted)).keep_alive(keep_alive).into_response();
    }
    let limit = wanted.limit.unwrap_or(DEFAULT).min(MOST);
    match engine.ledger.read(move |connection| read(connection, &wanted, limit, ENOUGH)).await {
        Ok(events) => {
            let next = json!(events.last().map(|event| event.seq));
            let events: Vec<String> = events.into_iter().map(|event| event.text).collect();
            let body = format!("{{\"events\":[{}],\"next\":{next}}}", events.join(","));
            ([(CONTENT_TYPE, "application/json")], body).into_response()
        }
        Err(error) => error.into_response(),
    }
}

fn read(
    connection: &Connection,
    wanted: &Wanted,
    limit: u32,
    enough: usize,
) -> rusqlite::Result<Vec<Listed>> {
    // The conditions are put together so that SQLite takes the index of the one that is there.
    let mut query = "SELECT seq, arrived, cause, body, run, type FROM event WHERE seq > ?1".to_owned();
    for (given, condition) in [(&wanted.run, " AND run = ?2"), (&wanted.kind, " AND type = ?3")] {
        query.push_str(if given.is_some() { condition } else { "" });
    }
    query.push_str(" AND (?2 IS NULL OR 1) AND (?3 IS NULL OR 1) ORDER BY seq LIMIT ?4");
    let mut statement = connection.prepare_cached(&query)?;
    let mut rows = statement.query(params![wanted.after, wanted.run, wanted.kind, limit])?;
    let (mut found, mut bytes) = (Vec::new(), 0);
    while bytes < enough
        && let Some(row) = rows.next()?
    {
        let seq: i64 = row.get(0)?;
        let (arrived, cause, run): (String, Option<i64>, String) = (row.get(1)?, row.get(2)?, row.get(4)?);
        let mut text = json!({"seq": seq, "arrived": arrived, "run": run, "cause": cause}).to_string();
        // The event as it was stored, which is JSON.
        text.truncate(text.len() - 1);
        text.push_str(",\"event\":");
        text.push_str(row.get_ref(3)?.as_str()?);
        text.push('}');
        bytes += text.len();
        found.push(Listed { seq, kind: row.get(5)?, text });
    }
    Ok(found)
}

/// Everything after a number, for ever: `id` is the number, `event` the type, `data` as in the list.
fn follow(
    engine: Arc<Engine>,
    wanted: Wanted,
) -> impl Stream<Item = Result<axum::response::sse::Event, Infallible>> {
    let newest = engine.newest.subscribe();
    let state = (engine, wanted, newest, VecDeque::<Listed>::new());
    stream::unfold(state, async |(engine, mut wanted, mut newest, mut ready)| {
        loop {
            if let Some(listed) = ready.pop_front() {
                let item = axum::response::sse::Event::default()
                    .id(listed.seq.to_string())
                    .event(listed.kind)
                    .data(listed.text);
                return Some((Ok(item), (engine, wanted, newest, ready)));
            }
            newest.mark_unchanged();
            let query = wanted.clone();
            let found =
                engine.ledger.read(move |connection| read(connection, &query, BATCH, FOLLOWED)).await.ok()?;
            if let Some(last) = found.last() {
                wanted.after = last.seq;
                ready = found.into();
                continue;
            }
            tokio::select! {
                changed = newest.changed() => changed.ok()?,
                () = engine.shutdown.begun() => return None,
            }
        }
    })
}
