//! Models: list, show, remove, roll back.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use http::header::CONTENT_TYPE;
use http::{HeaderMap, StatusCode};
use serde::Deserialize;
use utoipa::IntoParams;

use super::expected_generation;
use super::wire::{Change, Model, ModelList, Part, Problem, Version, Worker};
use crate::engine;
use crate::error::extract::{Path, Query};
use crate::error::{Code, Error, Result};
use crate::model::{Entry, Models, PublicState};
use crate::store::{ModelName, VersionRecord, VersionState};

/// All models.
#[utoipa::path(get, path = "/v1/models", tag = "models", responses((status = 200, body = ModelList)))]
pub(super) async fn list(State(models): State<Arc<Models>>) -> Json<ModelList> {
    let listed = models.entries().iter().map(|(model, entry)| describe(&models, model, entry)).collect();
    Json(ModelList { models: listed })
}

/// One model, with the state of each version.
#[utoipa::path(get, path = "/v1/models/{model}", tag = "models", params(("model" = String, Path)),
    responses((status = 200, body = Model), (status = 404, body = Problem)))]
pub(super) async fn show(
    State(models): State<Arc<Models>>,
    Path(model): Path<String>,
) -> Result<Json<Model>> {
    let model: ModelName = model.parse()?;
    let entry = models.entry(&model)?;
    Ok(Json(describe(&models, &model, &entry)))
}

/// The contract that is served: the one that was pushed, or the one that was made for the model.
#[utoipa::path(get, path = "/v1/models/{model}/contract", tag = "models", params(("model" = String, Path)),
    responses((status = 200, description = "proto3 source", content_type = "text/plain"),
        (status = 404, body = Problem)))]
pub(super) async fn contract(
    State(models): State<Arc<Models>>,
    Path(model): Path<String>,
) -> Result<Response> {
    let served = models.served(&model)?;
    let contract = served.active()?.contract.as_ref().ok_or_else(|| {
        Error::new(Code::PartMissing, format!("no contract could be made for model {}", served.model))
    })?;
    let headers = [(CONTENT_TYPE, "text/plain; charset=utf-8")];
    Ok((headers, contract.schema.source().to_owned()).into_response())
}

/// How a removal treats what is being served.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct RemoveQuery {
    /// Remove even what is being served.
    #[serde(default)]
    force: bool,
}

/// Remove a model and all its versions.
#[utoipa::path(delete, path = "/v1/models/{model}", tag = "models", params(("model" = String, Path), RemoveQuery),
    responses((status = 204, description = "removed"), (status = 404, body = Problem),
        (status = 409, description = "a version is being served", body = Problem)))]
pub(super) async fn remove(
    State(models): State<Arc<Models>>,
    Path(model): Path<String>,
    Query(query): Query<RemoveQuery>,
) -> Result<StatusCode> {
    let claim = models.claim(&model.parse()?)?;
    models.remove_model(claim, query.force).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Go back to the version that was served before.
///
/// One pointer store while that version is still in memory, even with the store gone.
#[utoipa::path(post, path = "/v1/models/{model}:rollback", tag = "models",
    params(("model" = String, Path), ("if-match" = Option<String>, Header)),
    responses((status = 200, body = Change), (status = 404, body = Problem),
        (status = 409, description = "there is no earlier version", body = Problem)))]
pub(super) async fn rollback(models: Arc<Models>, model: &str, headers: &HeaderMap) -> Result<Json<Change>> {
    let expected = expected_generation(headers)?;
    Ok(Json(models.rollback(model.parse()?, expected).await?.into()))
}

pub(super) fn describe(models: &Models, model: &ModelName, entry: &Entry) -> Model {
    let active = entry.active.and_then(|number| entry.records.iter().find(|record| record.number == number));
    let state = match (active, entry.preparing) {
        (_, true) => "preparing",
        (Some(_), false) => "serving",
        (None, false) => "not serving",
    };
    let workers = models.workers(model);
    let listed = entry.records.iter().rev().filter(|record| record.state != VersionState::Removed);
    Model {
        model: model.to_string(),
        generation: entry.generation,
        active: active.map(|record| record.number.to_string()),
        digest: active.map(|record| record.digest.to_string()),
        state: state.to_owned(),
        reason: entry.trouble.clone(),
        degraded: workers.degraded,
        workers: workers.list.into_iter().map(worker).collect(),
        pinned_libraries: engine::pinned(model.as_str()),
        versions: listed.map(|record| version(entry, record)).collect(),
    }
}

fn worker(worker: engine::Worker) -> Worker {
    Worker {
        state: worker.state.name().to_owned(),
        pid: worker.pid,
        restarts: worker.restarts,
        resident_bytes: worker.resident,
        last_death: worker.last_death,
        pause_s: worker.pause.map(|pause| pause.as_secs_f64()),
    }
}

pub(super) fn version(entry: &Entry, record: &VersionRecord) -> Version {
    let part = |part: &crate::bundle::Part| Part { digest: part.digest.to_string(), size: part.size };
    Version {
        version: record.number.to_string(),
        digest: record.digest.to_string(),
        state: state_name(entry.state(record)).to_owned(),
        created_at: super::history::rfc3339(record.created_at),
        parts: record
            .manifest
            .parts
            .iter()
            .map(|(kind, stored)| (kind.name().to_owned(), part(stored)))
            .collect(),
    }
}

pub(super) fn state_name(state: PublicState) -> &'static str {
    match state {
        PublicState::Stored => "stored",
        PublicState::Ready => "ready",
        PublicState::Active => "active",
        PublicState::Collected => "collected",
        PublicState::Removed => "removed",
    }
}
