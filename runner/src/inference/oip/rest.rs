//! The protocol's REST routes.

use std::time::Instant;

use axum::body::Body;
use axum::extract::{Request, State};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use http::header::{CONTENT_TYPE, HeaderName};
use http::{HeaderMap, HeaderValue, StatusCode};
use serde::Deserialize;
use serde_json::{Value, json};

use super::{EXTENSIONS, Ready, RepositoryControl, SERVER_NAME, binary, describe, json as codec};
use crate::error::extract::Path;
use crate::error::{Code, Error, Result};
use crate::inference::body;
use crate::inference::headers::{REQUIRE_DIGEST_HEADER, named_by, sign_headers};
use crate::inference::infer::{Address, Inference, Inputs, Target};
use crate::requestlog::RequestId;
use crate::telemetry::Phase;

static BINARY_LENGTH: HeaderName = HeaderName::from_static("inference-header-content-length");

/// The routes of the protocol and the plain health checks.
pub fn router(inference: Inference, control: RepositoryControl, ready: Ready) -> Router {
    let state = Rest { inference, ready, control };
    let router = Router::new()
        .route("/livez", get(|| async { "ok\n" }))
        .route("/readyz", get(readyz))
        .route("/v2", get(server_metadata))
        .route("/v2/health/live", get(|| async { Json(json!({ "live": true })) }))
        .route("/v2/health/ready", get(server_ready))
        .route("/v2/models", get(list_models))
        .route("/v2/models/stats", get(all_statistics))
        .route("/v2/repository/index", post(repository_index));
    let router = match control {
        RepositoryControl::ReadOnly => router,
        RepositoryControl::Allowed => router
            .route("/v2/repository/models/{model}/load", post(load))
            .route("/v2/repository/models/{model}/unload", post(unload)),
    };
    // With and without a version.
    let router = ["/v2/models/{model}", "/v2/models/{model}/versions/{version}"].into_iter().fold(
        router,
        |router, at| {
            router
                .route(at, get(model_metadata))
                .route(&format!("{at}/ready"), get(model_ready))
                .route(&format!("{at}/config"), get(model_config))
                .route(&format!("{at}/stats"), get(model_statistics))
                .route(&format!("{at}/infer"), post(infer))
        },
    );
    router.with_state(state)
}

#[derive(Clone)]
struct Rest {
    inference: Inference,
    ready: Ready,
    control: RepositoryControl,
}

#[derive(Deserialize)]
struct ModelPath {
    model: String,
    #[serde(default)]
    version: String,
}

impl ModelPath {
    fn address(&self) -> Address<'_> {
        Address { model: &self.model, version: &self.version, digest: None }
    }
}

async fn readyz(State(rest): State<Rest>) -> Response {
    let ready = (rest.ready)(&rest.inference);
    let snapshot = rest.inference.models().board().load();
    let mut troubled: Vec<Value> = snapshot
        .iter()
        .filter_map(|served| {
            let error = served.active().err()?;
            Some(json!({ "model": served.model.as_str(), "reason": error.text() }))
        })
        .collect();
    troubled.sort_by_key(|model| model["model"].as_str().map(str::to_owned));
    let status = if ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    (status, Json(json!({ "ready": ready, "not_serving": troubled }))).into_response()
}

async fn server_ready(State(rest): State<Rest>) -> Response {
    let ready = (rest.ready)(&rest.inference);
    let status = if ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    (status, Json(json!({ "ready": ready }))).into_response()
}

async fn server_metadata(State(rest): State<Rest>) -> Json<Value> {
    Json(json!({
        "name": SERVER_NAME,
        "version": env!("CARGO_PKG_VERSION"),
        "extensions": extensions(rest.control),
    }))
}

/// The extensions that this port implements.
pub(super) fn extensions(control: RepositoryControl) -> Vec<&'static str> {
    let repository = (control == RepositoryControl::Allowed).then_some("model_repository");
    EXTENSIONS.into_iter().chain(repository).collect()
}

async fn list_models(State(rest): State<Rest>) -> Json<Value> {
    let mut names: Vec<String> =
        rest.inference.models().board().load().iter().map(|served| served.model.to_string()).collect();
    names.sort();
    Json(json!({ "models": names }))
}

fn target(rest: &Rest, path: &ModelPath) -> Result<Target> {
    rest.inference.target(path.address())
}

async fn model_metadata(State(rest): State<Rest>, Path(path): Path<ModelPath>) -> Result<Json<Value>> {
    let metadata = describe::metadata(&target(&rest, &path)?);
    let tensors =
        |tensors: &[baton_proto::inference::model_metadata_response::TensorMetadata]| -> Vec<Value> {
            tensors
            .iter()
            .map(|tensor| json!({ "name": tensor.name, "datatype": tensor.datatype, "shape": tensor.shape }))
            .collect()
        };
    Ok(Json(json!({
        "name": metadata.name,
        "versions": metadata.versions,
        "platform": metadata.platform,
        "inputs": tensors(&metadata.inputs),
        "outputs": tensors(&metadata.outputs),
        "properties": metadata.properties,
    })))
}

async fn model_ready(State(rest): State<Rest>, Path(path): Path<ModelPath>) -> Result<Json<Value>> {
    if target(&rest, &path)?.version().is_degraded() {
        return Err(Error::new(
            Code::WorkerLost,
            format!("model {} is degraded: its workers die again and again", path.model),
        ));
    }
    Ok(Json(json!({ "name": path.model, "ready": true })))
}

async fn model_config(State(rest): State<Rest>, Path(path): Path<ModelPath>) -> Result<Json<Value>> {
    let config = describe::config(target(&rest, &path)?.version());
    let tensor = |name: &str, data_type: &str, dims: &[i64]| json!({ "name": name, "data_type": data_type, "dims": dims });
    Ok(Json(json!({
        "name": config.name,
        "platform": config.platform,
        "backend": config.backend,
        "max_batch_size": config.max_batch_size,
        "input": config.input.iter().map(|input| tensor(&input.name, input.data_type().as_str_name(), &input.dims)).collect::<Vec<_>>(),
        "output": config.output.iter().map(|output| tensor(&output.name, output.data_type().as_str_name(), &output.dims)).collect::<Vec<_>>(),
        "model_transaction_policy": { "decoupled": false },
    })))
}

async fn model_statistics(State(rest): State<Rest>, Path(path): Path<ModelPath>) -> Result<Json<Value>> {
    let statistics = statistics_json(&describe::statistics(target(&rest, &path)?.version()));
    Ok(Json(json!({ "model_stats": [statistics] })))
}

async fn all_statistics(State(rest): State<Rest>) -> Json<Value> {
    let snapshot = rest.inference.models().board().load();
    let active = snapshot.iter().filter_map(|served| served.active().ok());
    let statistics: Vec<Value> =
        active.map(|version| statistics_json(&describe::statistics(version))).collect();
    Json(json!({ "model_stats": statistics }))
}

fn statistics_json(statistics: &baton_proto::inference::ModelStatistics) -> Value {
    let duration = |duration: &Option<baton_proto::inference::StatisticDuration>| {
        let duration = duration.unwrap_or_default();
        json!({ "count": duration.count, "ns": duration.ns })
    };
    let inference = statistics.inference_stats.unwrap_or_default();
    json!({
        "name": statistics.name,
        "version": statistics.version,
        "last_inference": statistics.last_inference,
        "inference_count": statistics.inference_count,
        "execution_count": statistics.execution_count,
        "inference_stats": {
            "success": duration(&inference.success),
            "fail": duration(&inference.fail),
            "queue": duration(&inference.queue),
            "compute_input": duration(&inference.compute_input),
            "compute_infer": duration(&inference.compute_infer),
            "compute_output": duration(&inference.compute_output),
            "cache_hit": duration(&inference.cache_hit),
            "cache_miss": duration(&inference.cache_miss),
        },
        "batch_stats": [],
        "memory_usage": [],
        "response_stats": {},
    })
}

async fn repository_index(State(rest): State<Rest>, request: Request) -> Result<Json<Value>> {
    #[derive(Deserialize, Default)]
    struct Query {
        #[serde(default)]
        ready: bool,
    }
    let (parts, body) = request.into_parts();
    let bytes = body::read(&parts.headers, body, rest.inference.limits()).await?;
    let query: Query = match bytes.trim_ascii() {
        b"" => Query::default(),
        text => serde_json::from_slice(text).map_err(|error| {
            Error::new(Code::BadJson, "expected {} or {\"ready\": true}").caused_by(error)
        })?,
    };
    let models = describe::index(&rest.inference, query.ready);
    let entry = |model: baton_proto::inference::repository_index_response::ModelIndex| json!({ "name": model.name, "version": model.version, "state": model.state, "reason": model.reason });
    Ok(Json(models.into_iter().map(entry).collect()))
}

async fn load(State(rest): State<Rest>, Path(path): Path<ModelPath>, request: Request) -> Result<()> {
    let (parts, body) = request.into_parts();
    let bytes = body::read(&parts.headers, body, rest.inference.limits()).await?;
    refuse_load_parameters(&bytes)?;
    let models = rest.inference.models();
    let claim = models.claim(&path.model.parse()?)?;
    models.activate(claim, None, None).await.map(|_| ())
}

/// Triton's load takes a configuration and files; here a model arrives by a push, which checks it whole.
fn refuse_load_parameters(bytes: &[u8]) -> Result<()> {
    let body: Value = match bytes.trim_ascii() {
        b"" => return Ok(()),
        text => serde_json::from_slice(text)
            .map_err(|error| Error::new(Code::BadJson, "the body is no JSON").caused_by(error))?,
    };
    match body.get("parameters").and_then(Value::as_object) {
        Some(parameters) if !parameters.is_empty() => Err(load_parameters_unsupported()),
        _ => Ok(()),
    }
}

pub(super) fn load_parameters_unsupported() -> Error {
    Error::new(
        Code::Unsupported,
        "load takes no configuration and no files; push a model with PUT /v1/models/{model} on the admin port",
    )
}

async fn unload(State(rest): State<Rest>, Path(path): Path<ModelPath>) -> Result<()> {
    let models = rest.inference.models();
    let claim = models.claim(&path.model.parse()?)?;
    models.deactivate(claim).await.map(|_| ())
}

async fn infer(State(rest): State<Rest>, Path(path): Path<ModelPath>, request: Request) -> Result<Response> {
    let (parts, body) = request.into_parts();
    let headers = &parts.headers;
    let limits = rest.inference.limits();
    let body = body::read(headers, body, limits).await?;
    let json_length = header_text(headers, &BINARY_LENGTH)?;
    let raw = json_length == Some("0");
    let address = Address {
        digest: header_text(headers, &HeaderName::from_static(REQUIRE_DIGEST_HEADER))?,
        ..path.address()
    };

    let mut form = codec::Form { binary: raw, ..codec::Form::default() };
    let target = rest.inference.target(address)?;
    let is_logged = target.is_logged();
    let named = if is_logged { named_by(headers, limits) } else { None };
    let answer = rest
        .inference
        .infer(target, |signature| -> Result<Inputs> {
            if raw {
                return Ok(Inputs { request_id: named, ..binary::raw_request(body, signature)? });
            }
            let (text, blobs) = binary::split(body, json_length)?;
            let (inputs, wanted) = codec::read(&text, blobs, limits.tensors)?;
            form = wanted;
            let id = form.id.as_deref().filter(|_| is_logged);
            let request_id = id.and_then(|id| RequestId::given(id, limits)).or(named);
            Ok(Inputs { request_id, ..inputs })
        })
        .await?;

    let start = Instant::now();
    let (bytes, json_length) = codec::write(&answer, &form)?;
    let mut response = Response::new(Body::empty());
    let response_headers = response.headers_mut();
    sign_headers(&answer.target, answer.request_id.as_ref(), response_headers);
    let bytes = body::compress(headers, response_headers, bytes);
    match json_length {
        Some(length) => {
            response_headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/octet-stream"));
            response_headers.insert(&BINARY_LENGTH, HeaderValue::from(length));
        }
        None => {
            response_headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        }
    }
    *response.body_mut() = Body::from(bytes);
    answer.target.version().metrics.phase(Phase::Encode, start.elapsed());
    Ok(response)
}

fn header_text<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Result<Option<&'a str>> {
    headers
        .get(name)
        .map(|value| {
            value
                .to_str()
                .map_err(|_| Error::new(Code::BadRequest, format!("header {name} is no plain text")))
        })
        .transpose()
}
