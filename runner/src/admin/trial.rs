//! Try before you swap: run what is uploaded once, convert messages. Nothing is kept.

use std::sync::Arc;

use axum::extract::{FromRequest, Multipart, Request, State};
use axum::response::{IntoResponse, Response};
use http::header::CONTENT_TYPE;
use serde::Deserialize;
use utoipa::IntoParams;

use super::receive::{self, TrialParts};
use super::wire::Problem;
use crate::contract::MessageForm;
use crate::error::extract::Query;
use crate::error::{Code, Error, Result};
use crate::model::{ConvertBy, Models, Trial, TrialModel};

/// What to run and how.
#[derive(Debug, Default, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct TrialQuery {
    /// The method; not needed if the contract has one only.
    method: Option<String>,
    /// A served model, whose model and contract are taken where none is uploaded.
    model: Option<String>,
    /// The answer's form: `json` (if nothing is said), `csv` or `protobuf`.
    accept: Option<String>,
}

/// The parts of a trial.
#[derive(utoipa::ToSchema)]
#[allow(dead_code, reason = "describes the form in the OpenAPI document")]
pub(super) struct TrialForm {
    /// The model file.
    #[schema(value_type = Option<String>, format = Binary)]
    model: Option<Vec<u8>>,
    /// The `.proto` source.
    #[schema(value_type = Option<String>, format = Binary)]
    contract: Option<Vec<u8>>,
    /// Settings, `baton.toml`.
    #[schema(value_type = Option<String>, format = Binary)]
    manifest: Option<Vec<u8>>,
    /// The request: JSON, CSV or protobuf, by its content type or file name.
    #[schema(value_type = String, format = Binary)]
    input: Vec<u8>,
}

/// Run a model and a contract once.
///
/// The upload is loaded, bound and run with the input; the answer is the method's. Nothing is kept.
#[utoipa::path(post, path = "/v1/try", tag = "try", params(TrialQuery),
    request_body(content = TrialForm, content_type = "multipart/form-data"),
    responses((status = 200, description = "the answer, in the form that was asked for"),
        (status = 422, description = "the model or contract was refused", body = Problem)))]
pub(super) async fn run(
    State(models): State<Arc<Models>>,
    Query(query): Query<TrialQuery>,
    request: Request,
) -> Result<Response> {
    let _place = models.upload_place()?;
    let answer = match query.accept.as_deref() {
        None => MessageForm::Json,
        Some(name) => form_named(name)?,
    };
    let TrialParts { model, contract, manifest, input } = parts(&models, request).await?;
    let model = match (model, query.model) {
        (Some(artifact), _) => TrialModel::Uploaded(artifact),
        (None, Some(name)) => TrialModel::Served(name.parse()?),
        (None, None) => {
            return Err(Error::new(
                Code::UploadEmpty,
                "upload a part \"model\", or name a served one with ?model=",
            ));
        }
    };
    let (input, form) = required(input)?;
    let manifest = manifest.unwrap_or_default();
    let trial = Trial { model, contract, manifest, method: query.method, input, form, answer };
    let bytes = models.try_once(trial).await?;
    Ok(([(CONTENT_TYPE, answer.media_type())], bytes).into_response())
}

/// Convert JSON or CSV to protobuf.
///
/// The bytes are those of the method's request.
#[utoipa::path(post, path = "/v1/convert", tag = "try", params(TrialQuery),
    request_body(content = TrialForm, content_type = "multipart/form-data"),
    responses((status = 200, description = "protobuf bytes", content_type = "application/protobuf"),
        (status = 400, description = "the input does not fit the contract", body = Problem)))]
pub(super) async fn convert(
    State(models): State<Arc<Models>>,
    Query(query): Query<TrialQuery>,
    request: Request,
) -> Result<Response> {
    let _place = models.upload_place()?;
    let TrialParts { contract, input, .. } = parts(&models, request).await?;
    let contract = match (contract, query.model) {
        (Some(source), _) => ConvertBy::Uploaded(source),
        (None, Some(name)) => ConvertBy::Served(name.parse()?),
        (None, None) => {
            return Err(Error::new(
                Code::UploadEmpty,
                "upload a part \"contract\", or name a model with ?model=",
            ));
        }
    };
    let (input, form) = required(input)?;
    let bytes = models.convert(contract, query.method, form, input).await?;
    Ok(([(CONTENT_TYPE, MessageForm::Protobuf.media_type())], bytes).into_response())
}

async fn parts(models: &Models, request: Request) -> Result<TrialParts> {
    let form = Multipart::from_request(request, &()).await.map_err(|error| {
        Error::new(Code::BadMultipart, "the body is no multipart/form-data with a boundary").caused_by(error)
    })?;
    receive::trial(models.limits(), form).await
}

fn required(input: Option<(Vec<u8>, MessageForm)>) -> Result<(Vec<u8>, MessageForm)> {
    input.ok_or_else(|| Error::new(Code::UploadEmpty, "upload a part \"input\" with the request"))
}

fn form_named(name: &str) -> Result<MessageForm> {
    match name {
        "json" => Ok(MessageForm::Json),
        "csv" => Ok(MessageForm::Csv),
        "protobuf" => Ok(MessageForm::Protobuf),
        _ => Err(Error::new(Code::BadRequest, "accept is json, csv or protobuf")),
    }
}
