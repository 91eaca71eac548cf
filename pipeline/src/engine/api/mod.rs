//! What others see of the engine, over HTTP: one file a resource, merged here.

mod blobs;
mod deliveries;
mod events;
mod ingress;
mod state;

use std::sync::Arc;

use axum::response::{IntoResponse, Response};
use axum::{Json, Router, middleware};
use http::StatusCode;
use serde_json::json;

use super::ledger::{DATABASE, LedgerError};
use super::{Engine, guard};
use crate::records;

/// All routes, behind the guard. Another resource is another line.
pub(crate) fn all(engine: Arc<Engine>) -> Router {
    let routes = Router::new()
        .merge(ingress::routes())
        .merge(events::routes())
        .merge(deliveries::routes())
        .merge(state::routes())
        .merge(blobs::routes())
        .with_state(engine.clone())
        .merge(records::api::routes(engine.settings.data.join(DATABASE)));
    // Around the routes as a whole: the guard sees the path before they do.
    Router::new().fallback_service(routes).layer(middleware::from_fn_with_state(engine, guard::check))
}

/// `{"error": TEXT}`.
pub(crate) fn refused(status: StatusCode, text: impl std::fmt::Display) -> Response {
    (status, Json(json!({ "error": text.to_string() }))).into_response()
}

impl IntoResponse for LedgerError {
    fn into_response(self) -> Response {
        refused(StatusCode::SERVICE_UNAVAILABLE, self)
    }
}
