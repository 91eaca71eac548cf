//! Where events come in; and health.

use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use futures_util::StreamExt;
use http::{HeaderMap, StatusCode};

use super::super::Engine;
use super::refused;
use crate::event::{Event, MAX_EVENT};

/// Bytes of a body that is too large and that are read all the same.
const PATIENCE: usize = 64 * MAX_EVENT;

pub(super) fn routes() -> Router<Arc<Engine>> {
    Router::new()
        .route("/", post(accept))
        .route("/health/readiness", get(|| async { "ready\n" }))
        .route("/health/liveness", get(|| async { "live\n" }))
}

/// 202 when the event is on disk, or was before.
async fn accept(State(engine): State<Arc<Engine>>, headers: HeaderMap, body: Body) -> Response {
    let read = match read(body).await {
        Ok(body) => Event::from_http(&headers, &body),
        Err(refusal) => return refusal,
    };
    let event = match read {
        Ok(event) => event,
        Err(error) => {
            let status = StatusCode::from_u16(error.status()).unwrap_or(StatusCode::BAD_REQUEST);
            return refused(status, error);
        }
    };
    match engine.accept(event).await {
        Ok(_) => StatusCode::ACCEPTED.into_response(),
        Err(error) => error.into_response(),
    }
}

/// The body, if it is small enough. Of one that is not some more is read and thrown away: a client that is still sending when the
/// connection is closed would not see why.
async fn read(body: Body) -> Result<Vec<u8>, Response> {
    let mut stream = body.into_data_stream();
    let (mut bytes, mut length) = (Vec::new(), 0);
    while length < PATIENCE {
        match stream.next().await {
            Some(Ok(chunk)) => {
                length += chunk.len();
                if length <= MAX_EVENT {
                    bytes.extend_from_slice(&chunk);
                }
            }
            Some(Err(error)) => return Err(refused(StatusCode::BAD_REQUEST, error)),
            None => break,
        }
    }
    if length > MAX_EVENT {
        let text =
            format!("more than {MAX_EVENT} bytes of event; put the data into the store and send a reference");
        return Err(refused(StatusCode::PAYLOAD_TOO_LARGE, text));
    }
    Ok(bytes)
}
