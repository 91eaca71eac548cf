//! `GET /v1/functions`: services and jobs with what runs of them; `GET /metrics`: the same in numbers.

use std::fmt::Write as _;
use std::sync::Arc;

use axum::extract::State;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use http::header::CONTENT_TYPE;
use rusqlite::Connection;
use serde_json::{Value, json};

use super::super::router::Target;
use super::super::{Engine, job};

pub(super) fn routes() -> Router<Arc<Engine>> {
    Router::new().route("/v1/functions", get(functions)).route("/metrics", get(metrics))
}

async fn functions(State(engine): State<Arc<Engine>>) -> Response {
    let sinks: Vec<_> = engine.job_sinks().cloned().collect();
    let found = engine.ledger.read(move |connection| {
        let jobs =
            sinks.iter().map(|sink| job::list(connection, sink)).collect::<rusqlite::Result<Vec<Value>>>()?;
        Ok((jobs, counts(connection, DELIVERIES_BY_LANE)?))
    });
    let (mut jobs, deliveries) = match found.await {
        Ok(found) => found,
        Err(error) => return error.into_response(),
    };
    let services = engine.pools.iter().flatten().map(|pool| pool.describe());
    let mut all: Vec<Value> = services.collect();
    all.append(&mut jobs);
    for function in &mut all {
        let lane = format!(
            "{}/{}",
            function["kind"].as_str().unwrap_or(""),
            function["name"].as_str().unwrap_or("")
        );
        let of = |state: &str| {
            let mut found = deliveries.iter().filter(|(key, which, _)| *key == lane && which == state);
            found.next().map_or(0, |(_, _, count)| *count)
        };
        function["deliveries"] = json!({"pending": of("pending"), "done": of("done"), "dead": of("dead")});
    }
    let urls =
        engine.router.lanes.iter().filter(|lane| matches!(lane.target, Target::Url(_))).map(|lane| &lane.key);
    Json(json!({"functions": all, "elsewhere": urls.collect::<Vec<_>>()})).into_response()
}

const DELIVERIES_BY_LANE: &str = "SELECT lane, state, count(*) FROM delivery GROUP BY 1, 2";
const DELIVERIES: &str = "SELECT trigger, state, count(*) FROM delivery GROUP BY 1, 2";
const EVENTS: &str = "SELECT type, '', count(*) FROM event GROUP BY 1";
const JOBS: &str = "SELECT sink, coalesce(result, state), count(*) FROM job GROUP BY 1, 2";

fn counts(connection: &Connection, query: &str) -> rusqlite::Result<Vec<(String, String, i64)>> {
    connection
        .prepare_cached(query)?
        .query_map([], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)))?
        .collect()
}

/// The text format of Prometheus.
async fn metrics(State(engine): State<Arc<Engine>>) -> Response {
    let found = engine.ledger.read(|connection| {
        Ok([counts(connection, EVENTS)?, counts(connection, DELIVERIES)?, counts(connection, JOBS)?])
    });
    let [events, deliveries, jobs] = match found.await {
        Ok(found) => found,
        Err(error) => return error.into_response(),
    };
    let mut text = String::new();
    let mut family =
        |name: &str, kind: &str, help: &str, labels: [&str; 2], rows: &[(String, String, i64)]| {
            let _ = writeln!(text, "# HELP {name} {help}\n# TYPE {name} {kind}");
            for (first, second, value) in rows {
                let mut pairs = format!("{}=\"{}\"", labels[0], escaped(first));
                if !labels[1].is_empty() {
                    let _ = write!(pairs, ",{}=\"{}\"", labels[1], escaped(second));
                }
                let _ = writeln!(text, "{name}{{{pairs}}} {value}");
            }
        };
    let instances: Vec<(String, String, i64)> = engine
        .pools
        .iter()
        .flatten()
        .map(|pool| (pool.service.name.clone(), String::new(), i64::from(pool.size())))
        .collect();
    family("baton_pipeline_events_total", "counter", "Events that were accepted.", ["type", ""], &events);
    family(
        "baton_pipeline_deliveries",
        "gauge",
        "Deliveries by their state.",
        ["trigger", "state"],
        &deliveries,
    );
    family("baton_pipeline_jobs", "gauge", "Jobs by their state or result.", ["job", "state"], &jobs);
    family(
        "baton_pipeline_instances",
        "gauge",
        "Instances that are there, in any state.",
        ["service", ""],
        &instances,
    );
    ([(CONTENT_TYPE, "text/plain; version=0.0.4")], text).into_response()
}

/// A type of somebody else's event may hold anything.
fn escaped(label: &str) -> String {
    label.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n")
}
