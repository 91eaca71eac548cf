//! The records over HTTP: `GET /v1/runs`, `GET /v1/runs/RUN`, `GET /v1/lineage/DIGEST`.
//!
//! Read-only and without a state of its own, so the local engine and `fn history` on a cluster answer with the same code.

use std::path::PathBuf;

use axum::extract::rejection::QueryRejection;
use axum::extract::{Path, Query as Parameters, State};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use http::StatusCode;
use serde::Deserialize;
use serde_json::json;

use super::{RecordsError, Source, lineage, openlineage, query};

/// Events that come with a run.
const MAX_EVENTS: usize = 1000;

/// The routes for a database that an engine writes.
pub fn routes(database: PathBuf) -> Router {
    routes_of(Source::file(database))
}

/// The routes for any records.
pub fn routes_of(source: Source) -> Router {
    Router::new()
        .route("/v1/runs", get(runs))
        .route("/v1/runs/{run}", get(run))
        .route("/v1/lineage/{subject}", get(lineage))
        .with_state(source)
}

/// What is asked for. A misspelt parameter is a mistake: without it, everything would match.
type Asked<T> = Result<Parameters<T>, QueryRejection>;

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct RunsParameters {
    #[serde(default)]
    r#where: String,
    #[serde(default)]
    sort: String,
    #[serde(default)]
    columns: String,
    limit: Option<usize>,
    model: Option<String>,
}

/// [`query::Found`]
async fn runs(State(source): State<Source>, asked: Asked<RunsParameters>) -> Result<Response, RecordsError> {
    let Parameters(asked) = asked?;
    let query = query::Query {
        model: asked.model,
        filter: asked.r#where,
        sort: asked.sort,
        columns: asked.columns,
        limit: asked.limit.unwrap_or(query::DEFAULT_LIMIT),
    };
    let found = source.read(move |records| query::search(records, &query)).await?;
    Ok(Json(found).into_response())
}

/// `{"runs": [DOCUMENT of each model], "events": [EVENT, ...]}`
async fn run(State(source): State<Source>, Path(run): Path<String>) -> Result<Response, RecordsError> {
    let (runs, events) = source
        .read(move |records| {
            let found = super::run(records, &run, MAX_EVENTS)?;
            match found.0.is_empty() {
                true => Err(RecordsError::Unknown(format!("there is no run {run:?}"))),
                false => Ok(found),
            }
        })
        .await?;
    Ok(Json(json!({ "runs": runs, "events": events })).into_response())
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct LineageParameters {
    format: Option<Format>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Format {
    Baton,
    OpenLineage,
}

/// [`lineage::Lineage`], or with `?format=openlineage` a list of run events.
async fn lineage(
    State(source): State<Source>,
    Path(subject): Path<String>,
    asked: Asked<LineageParameters>,
) -> Result<Response, RecordsError> {
    let Parameters(asked) = asked?;
    if asked.format == Some(Format::OpenLineage) {
        let events = source.read(move |records| openlineage::of(records, &subject)).await?;
        return Ok(Json(events).into_response());
    }
    let found = source.read(move |records| lineage::find(records, &subject)).await?;
    Ok(Json(found).into_response())
}

impl From<QueryRejection> for RecordsError {
    fn from(rejection: QueryRejection) -> Self {
        RecordsError::Asked(rejection.body_text())
    }
}

impl IntoResponse for RecordsError {
    fn into_response(self) -> Response {
        let status = match self {
            RecordsError::Query(_) | RecordsError::Asked(_) => StatusCode::BAD_REQUEST,
            RecordsError::Unknown(_) => StatusCode::NOT_FOUND,
            _ => StatusCode::SERVICE_UNAVAILABLE,
        };
        let column = match &self {
            RecordsError::Query(error) => Some(error.column),
            _ => None,
        };
        (status, Json(json!({ "error": self.to_string(), "column": column }))).into_response()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use serde_json::Value;

    use super::*;
    use crate::records::tests::{records, whole_run};

    #[tokio::test]
    async fn mistakes_are_told_as_json_and_cut_answers_say_so() {
        let records = records(&[whole_run("r1", "iris", 0.9, 0), whole_run("r2", "iris", 0.9, 9)].concat());
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = format!("http://{}", listener.local_addr().unwrap());
        let routes = routes_of(Source::shared(Arc::new(Mutex::new(records))));
        tokio::spawn(async move { axum::serve(listener, routes).await });
        let http = reqwest::Client::builder().no_proxy().build().unwrap();
        let get = async |path: &str| {
            let answer = http.get(format!("{address}/v1/{path}")).send().await.unwrap();
            (answer.status().as_u16(), answer.json::<Value>().await.unwrap())
        };
        for (path, status, reason) in [
            ("runs?wher=x", 400, "wher"),
            ("runs?limit=abc", 400, "limit"),
            ("runs?limit=10001", 400, "at most 10000"),
            ("runs?limit=1&limit=1", 400, "limit"),
            ("runs?model=nobody", 404, "nobody"),
            ("runs?columns=run,acuracy", 400, "did you mean accuracy"),
            ("lineage/iris?format=json", 400, "format"),
        ] {
            let (told, answer) = get(path).await;
            assert_eq!(told, status, "{path}: {answer}");
            assert!(answer["error"].as_str().unwrap().contains(reason), "{path}: {answer}");
        }
        for (path, count, truncated) in [("runs?limit=1", 1, true), ("runs?limit=2&sort=run", 2, false)] {
            let (_, answer) = get(path).await;
            assert_eq!(answer["runs"].as_array().unwrap().len(), count);
            assert_eq!(answer["truncated"], truncated, "{path}");
        }
    }
}
