//! The HTTP server in front of one function.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Bytes;
use axum::extract::DefaultBodyLimit;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use baton_runner::lifecycle::{Shutdown, wait_for_signal};
use http::{HeaderMap, StatusCode};

use super::{Context, Failure, Function};
use crate::event::{Event, MAX_EVENT};
use crate::server;

/// What is under way when the end begins has this long; who started the function mostly ends it before.
const DRAIN: Duration = Duration::from_secs(600);

/// Answers on this address until SIGTERM or SIGINT, then finishes what is under way.
///
/// # Errors
/// The address cannot be bound.
pub async fn serve(address: SocketAddr, function: Function, context: Arc<Context>) -> std::io::Result<()> {
    let call = move |headers: HeaderMap, body: Bytes| async move {
        answer(&headers, &body, async |event| function(context, event).await).await
    };
    listen(address, Router::new().route("/", post(call))).await
}

/// The same for a function with routes of its own; `/` is among them.
pub(super) async fn listen(address: SocketAddr, routes: Router) -> std::io::Result<()> {
    let listener = tokio::net::TcpListener::bind(address).await?;
    let routes = routes
        .route("/health/readiness", get(|| async { "ready\n" }))
        .route("/health/liveness", get(|| async { "live\n" }))
        .layer(DefaultBodyLimit::max(MAX_EVENT));
    let shutdown = Shutdown::default();
    tokio::spawn(server::run(listener, routes, shutdown.clone()));
    wait_for_signal().await;
    shutdown.begin();
    shutdown.drained(DRAIN).await;
    Ok(())
}

/// Reads the event, calls the function, and writes what it answered.
pub(super) async fn answer(
    headers: &HeaderMap,
    body: &[u8],
    function: impl AsyncFnOnce(Event) -> Result<Option<Event>, Failure>,
) -> Response {
    let event = match Event::from_http(headers, body) {
        Ok(event) => event,
        Err(error) => return refused(error.status(), &error.to_string()),
    };
    let (kind, id) = (event.kind.clone(), event.id.clone());
    match function(event).await {
        Ok(Some(answer)) => answer.to_http().into_response(),
        Ok(None) => StatusCode::NO_CONTENT.into_response(),
        Err(failure) => {
            tracing::warn!(event = %id, kind = %kind, "{failure}");
            let status = match failure {
                Failure::Later(_) => 503,
                Failure::Never(_) => 422,
            };
            refused(status, &failure.to_string())
        }
    }
}

fn refused(status: u16, text: &str) -> Response {
    let status = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    (status, axum::Json(serde_json::json!({ "error": text }))).into_response()
}
