//! The records over HTTP: `GET /v1/runs`, `GET /v1/runs/RUN`, `GET /v1/lineage/DIGEST`.
//!
//! Read-only and without a state of its own, so the local engine and `fn history` on a cluster answer with the same code.

use std::path::PathBuf;

use axum::extract::{Path, Query as Parameters, State};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use http::StatusCode;
use serde::{Deserialize, Serialize};
use serde_json::json;
use serde_json::value::RawValue;

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

#[derive(Debug, Deserialize)]
struct RunsParameters {
    #[serde(default)]
    r#where: String,
    #[serde(default)]
    sort: String,
    limit: Option<usize>,
    model: Option<String>,
}

/// `{"runs": [DOCUMENT, ...]}`
async fn runs(
    State(source): State<Source>,
    Parameters(asked): Parameters<RunsParameters>,
) -> Result<Response, RecordsError> {
    let query = query::Query {
        model: asked.model,
        filter: asked.r#where,
        sort: asked.sort,
        limit: asked.limit.unwrap_or(query::DEFAULT_LIMIT),
    };
    let runs = source.read(move |records| query::search(records, &query)).await?;
    Ok(Json(Runs { runs }).into_response())
}

#[derive(Serialize)]
struct Runs {
    runs: Vec<Box<RawValue>>,
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
    Parameters(asked): Parameters<LineageParameters>,
) -> Result<Response, RecordsError> {
    if asked.format == Some(Format::OpenLineage) {
        let events = source.read(move |records| openlineage::of(records, &subject)).await?;
        return Ok(Json(events).into_response());
    }
    let found = source.read(move |records| lineage::find(records, &subject)).await?;
    Ok(Json(found).into_response())
}

impl IntoResponse for RecordsError {
    fn into_response(self) -> Response {
        let status = match self {
            RecordsError::Query(_) => StatusCode::BAD_REQUEST,
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
