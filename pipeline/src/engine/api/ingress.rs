//! Where events come in; and health.

use std::sync::Arc;

use axum::Router;
use axum::body::Bytes;
use axum::extract::{DefaultBodyLimit, State};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use http::{HeaderMap, StatusCode};

use super::super::{Engine, call};
use super::refused;
use crate::event::{Event, EventError, MAX_EVENT};

pub(super) fn routes() -> Router<Arc<Engine>> {
    Router::new()
        .route("/", post(accept))
        // For the engine's own processes if others need a token; the guard has looked at the secret.
        .route("/sink/{secret}", post(accept))
        .route("/sink/{secret}/", post(accept))
        .layer(DefaultBodyLimit::max(MAX_EVENT))
        .route("/health/readiness", get(|| async { "ready\n" }))
        .route("/health/liveness", get(|| async { "live\n" }))
}

/// 202 when the event is on disk, or was before.
async fn accept(State(engine): State<Arc<Engine>>, headers: HeaderMap, body: Bytes) -> Response {
    let refusal = |error: EventError| {
        let status = StatusCode::from_u16(error.status()).unwrap_or(StatusCode::BAD_REQUEST);
        refused(status, error)
    };
    let event = match Event::from_http(&headers, &body).and_then(call::storable) {
        Ok(event) => event,
        Err(error) => return refusal(error),
    };
    match engine.accept(event).await {
        Ok(_) => StatusCode::ACCEPTED.into_response(),
        Err(error) => error.into_response(),
    }
}
