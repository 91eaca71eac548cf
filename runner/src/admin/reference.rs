//! What the server says about itself: limits, errors, metrics.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use http::header::CONTENT_TYPE;

use super::wire::{Limit, LimitList, Problem};
use crate::error::extract::Path;
use crate::error::{Code, Error, Result};
use crate::model::Models;

/// Every limit of this server.
#[utoipa::path(get, path = "/v1/limits", tag = "reference", responses((status = 200, body = LimitList)))]
pub(super) async fn limits(State(models): State<Arc<Models>>) -> Json<LimitList> {
    let limit = |limit: crate::config::limits::Limit| Limit {
        name: limit.name.to_owned(),
        value: limit.value,
        reason: limit.reason.to_owned(),
    };
    Json(LimitList { limits: models.limits().table().into_iter().map(limit).collect() })
}

/// The page of an error code, in Markdown.
#[utoipa::path(get, path = "/v1/errors/{code}", tag = "reference", params(("code" = String, Path)),
    responses((status = 200, description = "the page", content_type = "text/markdown"), (status = 404, body = Problem)))]
pub(super) async fn error_page(Path(code): Path<String>) -> Result<Response> {
    let code =
        Code::from_id(&code).ok_or_else(|| Error::new(Code::RouteUnknown, "there is no such error code"))?;
    Ok(([(CONTENT_TYPE, "text/markdown; charset=utf-8")], code.page()).into_response())
}

/// Metrics in the Prometheus text format.
#[utoipa::path(get, path = "/metrics", tag = "reference",
    responses((status = 200, description = "metrics", content_type = "text/plain")))]
pub(super) async fn metrics(State(models): State<Arc<Models>>) -> Response {
    models.count_workers();
    ([(CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], models.metrics().render()).into_response()
}
