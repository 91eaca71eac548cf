//! `/v1/deliveries`: what waits, what was given up, and trying that again.

use std::sync::Arc;

use axum::extract::{Query, State};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use http::StatusCode;
use rusqlite::{Connection, params};
use serde::Deserialize;
use serde_json::{Value, json};

use super::super::Engine;
use super::super::deliveries::{Accepted, Requeue, requeue};
use super::super::job::time;
use super::refused;

const DEFAULT: u32 = 100;
const MOST: u32 = 1000;

pub(super) fn routes() -> Router<Arc<Engine>> {
    Router::new().route("/v1/deliveries", get(list)).route("/v1/deliveries/requeue", post(again))
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Condition {
    Pending,
    Done,
    Dead,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Wanted {
    state: Option<Condition>,
    trigger: Option<String>,
    /// Only those with a smaller number, to go on from there.
    before: Option<i64>,
    limit: Option<u32>,
}

async fn list(State(engine): State<Arc<Engine>>, Query(wanted): Query<Wanted>) -> Response {
    let unknown = wanted.trigger.clone().filter(|trigger| engine.router.route(trigger).is_none());
    match engine.ledger.read(move |connection| read(connection, &wanted)).await {
        // One that is no longer in the manifests may have left some.
        Ok(deliveries) if deliveries.is_empty() && unknown.is_some() => {
            let trigger = unknown.unwrap_or_default();
            refused(StatusCode::NOT_FOUND, format!("there is no trigger {trigger}"))
        }
        Ok(deliveries) => Json(json!({"deliveries": deliveries})).into_response(),
        Err(error) => error.into_response(),
    }
}

/// Newest first.
fn read(connection: &Connection, wanted: &Wanted) -> rusqlite::Result<Vec<Value>> {
    let state = match wanted.state {
        None => "1",
        // Literals, so that SQLite takes the index of the state.
        Some(Condition::Pending) => "state = 'pending'",
        Some(Condition::Done) => "state = 'done'",
        Some(Condition::Dead) => "state = 'dead'",
    };
    let limit = wanted.limit.unwrap_or(DEFAULT).min(MOST);
    connection
        .prepare_cached(&format!(
            "SELECT delivery.id, trigger, kind, lane, revision, mark, state, attempt, next_at, changed, last_error, last_status,
                    source, event.id, type, subject, run, reply
             FROM delivery JOIN event ON event.seq = delivery.event
             WHERE {state} AND (?1 IS NULL OR trigger = ?1) AND (?3 IS NULL OR delivery.id < ?3)
             ORDER BY delivery.id DESC LIMIT ?2"
        ))?
        .query_map(params![wanted.trigger, limit, wanted.before], |row| {
            let state: String = row.get(6)?;
            let next = if state == "pending" { time(row.get(8)?) } else { None };
            Ok(json!({
                "id": row.get::<_, i64>(0)?,
                "trigger": row.get::<_, String>(1)?,
                "kind": row.get::<_, String>(2)?,
                "target": row.get::<_, String>(3)?,
                "revision": row.get::<_, String>(4)?,
                "batonrevision": row.get::<_, Option<String>>(5)?,
                "state": state,
                "failed_attempts": row.get::<_, i64>(7)?,
                "next": next,
                "changed": time(row.get(9)?),
                "error": row.get::<_, Option<String>>(10)?,
                "status": row.get::<_, Option<u16>>(11)?,
                "event": {
                    "source": row.get::<_, String>(12)?,
                    "id": row.get::<_, String>(13)?,
                    "type": row.get::<_, String>(14)?,
                    "subject": row.get::<_, Option<String>>(15)?,
                },
                "run": row.get::<_, String>(16)?,
                "reply": row.get::<_, Option<i64>>(17)?,
            }))
        })?
        .collect()
}

async fn again(State(engine): State<Arc<Engine>>, body: axum::body::Bytes) -> Response {
    let wanted: Requeue = match serde_json::from_slice(if body.is_empty() { b"{}" } else { &body }) {
        Ok(wanted) => wanted,
        Err(error) => return refused(StatusCode::BAD_REQUEST, error),
    };
    if let Some(trigger) = &wanted.trigger
        && engine.router.route(trigger).is_none()
    {
        return refused(StatusCode::NOT_FOUND, format!("there is no trigger {trigger}"));
    }
    let router = engine.router.clone();
    let (count, counted) = tokio::sync::oneshot::channel();
    let requeued = engine.write_and_wake(move |transaction| {
        let (number, lanes) = requeue(transaction, &router, &wanted)?;
        let _ = count.send(number);
        Ok(Accepted { lanes, ..Accepted::default() })
    });
    match requeued.await {
        Ok(_) => Json(json!({"requeued": counted.await.unwrap_or(0)})).into_response(),
        Err(error) => error.into_response(),
    }
}
