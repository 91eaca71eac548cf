//! Pushes: a whole bundle as multipart, or one part as the raw body.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::Json;
use axum::extract::{FromRequest, Multipart, Request, State};
use axum::response::{IntoResponse, Response};
use http::StatusCode;
use serde::Deserialize;
use utoipa::IntoParams;

use super::wire::{Change, Problem};
use super::{expected_generation, receive};
use crate::bundle::{Digest, PartKind};
use crate::error::extract::{Path, Query};
use crate::error::{Code, Error, Result};
use crate::model::{Claim, Models, OnActivate, OnBreaking, Outcome, Push, UploadPlace, check_announced};
use crate::store::Staged;

/// Announces the digest of a raw upload, to be compared with what arrived.
const DIGEST_HEADER: &str = "baton-digest";

/// What is to become of the bundle.
#[derive(Debug, Default, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct PushQuery {
    /// Store without activating.
    #[serde(default)]
    stage: bool,
    /// Check only: nothing is kept.
    #[serde(default)]
    dry_run: bool,
    /// What happens to a contract that breaks clients of the one being served: `refuse` (if nothing is said) or `allow`.
    #[serde(default)]
    on_breaking: BreakingQuery,
}

#[derive(Debug, Default, Clone, Copy, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "lowercase")]
pub(super) enum BreakingQuery {
    #[default]
    Refuse,
    Allow,
}

impl From<BreakingQuery> for OnBreaking {
    fn from(query: BreakingQuery) -> Self {
        match query {
            BreakingQuery::Refuse => Self::Refuse,
            BreakingQuery::Allow => Self::Allow,
        }
    }
}

impl PushQuery {
    fn then(&self) -> Result<OnActivate> {
        match (self.stage, self.dry_run) {
            (false, false) => Ok(OnActivate::Activate),
            (true, false) => Ok(OnActivate::Stage),
            (false, true) => Ok(OnActivate::DryRun),
            (true, true) => Err(Error::new(Code::BadRequest, "stage and dry_run exclude each other")),
        }
    }
}

/// Push a bundle.
///
/// Parts that are left out come from the active version, except provenance and signature. The bundle is checked,
/// loaded, tested with its golden rows, warmed up, and served from the next request on.
#[utoipa::path(
    put,
    path = "/v1/models/{model}",
    tag = "push",
    params(("model" = String, Path, description = "`[a-z0-9][a-z0-9._-]{0,62}`"), PushQuery,
        ("if-match" = Option<String>, Header, description = "the generation that the change is meant for, in quotes")),
    request_body(content = PushForm, content_type = "multipart/form-data"),
    responses(
        (status = 201, description = "a new version", body = Change),
        (status = 200, description = "the same bundle was there already, or a dry run passed", body = Change),
        (status = 409, description = "another change of this model is under way, or the contract breaks clients", body = Problem),
        (status = 412, description = "the model has moved on since If-Match", body = Problem),
        (status = 422, description = "the bundle was refused; what was served still is", body = Problem),
    )
)]
pub(super) async fn bundle(
    State(models): State<Arc<Models>>,
    Path(model): Path<String>,
    Query(query): Query<PushQuery>,
    request: Request,
) -> Result<Response> {
    let (claim, _place) = begin(&models, &model)?;
    let headers = request.headers().clone();
    let form = Multipart::from_request(request, &()).await.map_err(|error| {
        Error::new(
            Code::BadMultipart,
            "the body is no multipart/form-data with a boundary; to send one file as it is, PUT it to .../artifact",
        )
        .caused_by(error)
    })?;
    let parts = receive::multipart(models.store(), models.limits(), &headers, form).await?;
    finish(&models, claim, parts, &query, &headers).await
}

/// The parts of a multipart push.
#[derive(utoipa::ToSchema)]
#[allow(dead_code, reason = "describes the form in the OpenAPI document")]
pub(super) struct PushForm {
    /// The model file; required for a model's first version.
    #[schema(value_type = Option<String>, format = Binary)]
    model: Option<Vec<u8>>,
    /// The `.proto` source.
    #[schema(value_type = Option<String>, format = Binary)]
    contract: Option<Vec<u8>>,
    /// Settings, `baton.toml`.
    #[schema(value_type = Option<String>, format = Binary)]
    manifest: Option<Vec<u8>>,
    /// Golden rows, `golden.jsonl`.
    #[schema(value_type = Option<String>, format = Binary)]
    golden: Option<Vec<u8>>,
    /// Where the model comes from, a JSON object.
    #[schema(value_type = Option<String>, format = Binary)]
    provenance: Option<Vec<u8>>,
    /// A detached signature.
    #[schema(value_type = Option<String>, format = Binary)]
    signature: Option<Vec<u8>>,
}

macro_rules! raw_push {
    ($name:ident, $kind:expr, $path:literal, $doc:literal) => {
        #[doc = $doc]
        ///
        /// The raw body is the part; the others come from the active version.
        #[utoipa::path(
            put,
            path = $path,
            tag = "push",
            params(("model" = String, Path), PushQuery,
                ("if-match" = Option<String>, Header, description = "the generation that the change is meant for, in quotes"),
                ("baton-digest" = Option<String>, Header, description = "sha256:<hex> of the body, compared with what arrived")),
            request_body(content_type = "application/octet-stream"),
            responses(
                (status = 201, description = "a new version", body = Change),
                (status = 200, description = "the same bundle was there already, or a dry run passed", body = Change),
                (status = 422, description = "the bundle was refused; what was served still is", body = Problem),
            )
        )]
        pub(super) async fn $name(
            State(models): State<Arc<Models>>,
            Path(model): Path<String>,
            Query(query): Query<PushQuery>,
            request: Request,
        ) -> Result<Response> {
            raw(models, model, query, request, $kind).await
        }
    };
}

raw_push!(artifact, PartKind::Artifact, "/v1/models/{model}/artifact", "Push a model file.");
raw_push!(contract, PartKind::Contract, "/v1/models/{model}/contract", "Push a contract.");
raw_push!(manifest, PartKind::Manifest, "/v1/models/{model}/manifest", "Push settings.");

async fn raw(
    models: Arc<Models>,
    model: String,
    query: PushQuery,
    request: Request,
    kind: PartKind,
) -> Result<Response> {
    let (claim, _place) = begin(&models, &model)?;
    let (head, body) = request.into_parts();
    let announced: Option<Digest> = match head.headers.get(DIGEST_HEADER) {
        None => None,
        Some(value) => Some(value.to_str().unwrap_or_default().parse()?),
    };
    let staged = receive::raw(models.store(), models.limits(), &head.headers, body, kind).await?;
    check_announced(announced, &staged)?;
    if staged.size() == 0 {
        return Err(Error::new(Code::UploadEmpty, format!("the {} is empty", kind.name())));
    }
    finish(&models, claim, BTreeMap::from([(kind, staged)]), &query, &head.headers).await
}

/// What can be refused before a byte is received.
fn begin(models: &Arc<Models>, model: &str) -> Result<(Claim, UploadPlace)> {
    let claim = models.claim(&model.parse()?)?;
    Ok((claim, models.upload_place()?))
}

async fn finish(
    models: &Arc<Models>,
    claim: Claim,
    parts: BTreeMap<PartKind, Staged>,
    query: &PushQuery,
    headers: &http::HeaderMap,
) -> Result<Response> {
    let push = Push {
        claim,
        parts,
        then: query.then()?,
        on_breaking: query.on_breaking.into(),
        expected_generation: expected_generation(headers)?,
    };
    let outcome = models.push(push).await?;
    let status = if outcome.created { StatusCode::CREATED } else { StatusCode::OK };
    Ok((status, Json(Change::from(outcome))).into_response())
}

impl From<Outcome> for Change {
    fn from(outcome: Outcome) -> Self {
        Self {
            model: outcome.model.to_string(),
            version: outcome.version.map(|version| version.to_string()),
            digest: outcome.digest.map(|digest| digest.to_string()),
            generation: outcome.generation,
            state: super::models::state_name(outcome.state).to_owned(),
            unchanged: outcome.unchanged,
            warnings: outcome.warnings,
        }
    }
}
