//! Versions: list, show, activate, remove, read parts back byte for byte.

use std::sync::Arc;

use axum::Json;
use axum::body::Body;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use http::header::{CONTENT_LENGTH, CONTENT_TYPE, ETAG};
use http::{HeaderMap, StatusCode};

use super::wire::{Change, Problem, Version, VersionList};
use super::{expected_generation, models};
use crate::bundle::PartKind;
use crate::error::extract::Path;
use crate::error::{Code, Error, Result};
use crate::model::Models;
use crate::store::{ModelName, VersionNumber, VersionState};

/// Bytes read from the disk at a time while a part is sent.
const CHUNK: usize = 256 << 10;

/// All versions of a model, newest first.
#[utoipa::path(get, path = "/v1/models/{model}/versions", tag = "versions", params(("model" = String, Path)),
    responses((status = 200, body = VersionList), (status = 404, body = Problem)))]
pub(super) async fn list(
    State(state): State<Arc<Models>>,
    Path(model): Path<String>,
) -> Result<Json<VersionList>> {
    let model: ModelName = model.parse()?;
    let described = models::describe(&state, &model, &state.entry(&model)?);
    Ok(Json(VersionList { model: described.model, versions: described.versions }))
}

/// One version.
#[utoipa::path(get, path = "/v1/models/{model}/versions/{version}", tag = "versions",
    params(("model" = String, Path), ("version" = String, Path)),
    responses((status = 200, body = Version), (status = 404, body = Problem)))]
pub(super) async fn show(
    State(state): State<Arc<Models>>,
    Path((model, version)): Path<(String, String)>,
) -> Result<Json<Version>> {
    let model: ModelName = model.parse()?;
    let entry = state.entry(&model)?;
    let record = entry.record(&model, version.parse()?)?;
    Ok(Json(models::version(&entry, record)))
}

/// Remove a version's files.
#[utoipa::path(delete, path = "/v1/models/{model}/versions/{version}", tag = "versions",
    params(("model" = String, Path), ("version" = String, Path)),
    responses((status = 204, description = "removed"), (status = 409, description = "it is being served", body = Problem)))]
pub(super) async fn remove(
    State(state): State<Arc<Models>>,
    Path((model, version)): Path<(String, String)>,
) -> Result<StatusCode> {
    let version: VersionNumber = version.parse()?;
    let claim = state.claim(&model.parse()?)?;
    state.remove_version(claim, version).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Serve a stored version.
#[utoipa::path(post, path = "/v1/models/{model}/versions/{version}:activate", tag = "versions",
    params(("model" = String, Path), ("version" = String, Path), ("if-match" = Option<String>, Header)),
    responses((status = 200, body = Change), (status = 404, body = Problem), (status = 422, body = Problem)))]
pub(super) async fn activate(
    State(state): State<Arc<Models>>,
    Path((model, action)): Path<(String, String)>,
    headers: HeaderMap,
) -> Result<Json<Change>> {
    let Some(version) = action.strip_suffix(":activate") else {
        return Err(Error::new(Code::RouteUnknown, "the one action of a version is :activate"));
    };
    let version: VersionNumber = version.parse()?;
    let claim = state.claim(&model.parse()?)?;
    Ok(Json(state.activate(claim, Some(version), expected_generation(&headers)?).await?.into()))
}

/// A part of a version, byte for byte.
#[utoipa::path(get, path = "/v1/models/{model}/versions/{version}/{part}", tag = "versions",
    params(("model" = String, Path), ("version" = String, Path),
        ("part" = String, Path, description = "artifact, contract, manifest, golden, provenance or signature")),
    responses((status = 200, description = "the part", content_type = "application/octet-stream"),
        (status = 404, body = Problem)))]
pub(super) async fn part(
    State(state): State<Arc<Models>>,
    Path((model, version, part)): Path<(String, String, String)>,
) -> Result<Response> {
    let model: ModelName = model.parse()?;
    let entry = state.entry(&model)?;
    let record = entry.record(&model, version.parse()?)?;
    if record.state != VersionState::Stored {
        return Err(Error::new(
            Code::VersionCollected,
            format!("the files of version {} of model {model} are no longer stored", record.number),
        ));
    }
    let missing = || {
        Error::new(Code::PartMissing, format!("version {} of model {model} has no such part", record.number))
    };
    let kind = PartKind::ALL.into_iter().find(|kind| kind.name() == part).ok_or_else(missing)?;
    let stored = record.manifest.part(kind).ok_or_else(missing)?;
    let file = state.store().open_blob(stored)?;
    let headers = [
        (CONTENT_TYPE, kind.media_type().to_owned()),
        (CONTENT_LENGTH, stored.size.to_string()),
        (ETAG, format!("\"{}\"", stored.digest)),
    ];
    let chunks = futures_util::stream::try_unfold(file, |mut file| async move {
        tokio::task::block_in_place(|| {
            let mut chunk = vec![0; CHUNK];
            let read = std::io::Read::read(&mut file, &mut chunk)?;
            chunk.truncate(read);
            Ok::<_, std::io::Error>((read > 0).then_some((chunk, file)))
        })
    });
    Ok((headers, Body::from_stream(chunks)).into_response())
}
