//! `GET /v1/blobs/sha256:HEX`: a blob of the store, verified. `GET /v1/reports/sha256:HEX`: a report of a dataset's check, as a page.

use std::sync::Arc;

use axum::Router;
use axum::body::Bytes;
use axum::extract::{Path, State};
use axum::response::{Html, IntoResponse, Response};
use axum::routing::get;
use http::StatusCode;
use http::header::{
    CONTENT_DISPOSITION, CONTENT_SECURITY_POLICY, CONTENT_TYPE, ETAG, X_CONTENT_TYPE_OPTIONS,
};
use tokio::sync::Semaphore;

use super::super::Engine;
use super::refused;
use crate::store::{Digest, StoreError};

/// Bytes of a blob that is given out: it is verified as a whole, in memory.
const LIMIT: u64 = 256 * 1024 * 1024;
/// Blobs in memory at a time.
static READS: Semaphore = Semaphore::const_new(2);

pub(super) fn routes() -> Router<Arc<Engine>> {
    Router::new().route("/v1/blobs/{digest}", get(blob)).route("/v1/reports/{digest}", get(report))
}

async fn report(State(engine): State<Arc<Engine>>, Path(digest): Path<String>) -> Response {
    match read(&engine, &digest).await {
        Ok((_, bytes)) => match baton_data::read_report(&bytes) {
            // The page is self-contained and needs no script; what it quotes from a file is escaped.
            Ok(report) => (
                [
                    (CONTENT_SECURITY_POLICY, "default-src 'none'; style-src 'unsafe-inline'"),
                    (X_CONTENT_TYPE_OPTIONS, "nosniff"),
                ],
                Html(baton_data::html(&report)),
            )
                .into_response(),
            Err(error) => {
                refused(StatusCode::UNPROCESSABLE_ENTITY, format!("{digest} is no report: {error}"))
            }
        },
        Err(error) => unread(error),
    }
}

/// A blob, verified.
async fn read(engine: &Engine, digest: &str) -> Result<(Digest, Bytes), StoreError> {
    let digest: Digest = digest.parse()?;
    let _permit = READS.acquire().await;
    engine.store.get(&digest, LIMIT).await.map(|bytes| (digest, bytes))
}

async fn blob(State(engine): State<Arc<Engine>>, Path(digest): Path<String>) -> Response {
    match read(&engine, &digest).await {
        // What it holds came from anywhere: no browser may show it as a page of this engine.
        Ok((digest, bytes)) => (
            [
                (CONTENT_TYPE, "application/octet-stream".to_owned()),
                (X_CONTENT_TYPE_OPTIONS, "nosniff".to_owned()),
                (CONTENT_DISPOSITION, format!("attachment; filename=\"{}\"", digest.hex())),
                (ETAG, format!("\"{digest}\"")),
            ],
            bytes,
        )
            .into_response(),
        Err(error) => unread(error),
    }
}

fn unread(error: StoreError) -> Response {
    let status = match error {
        StoreError::BadDigest(_) => StatusCode::BAD_REQUEST,
        StoreError::Missing(_) => StatusCode::NOT_FOUND,
        StoreError::TooLarge(..) => StatusCode::PAYLOAD_TOO_LARGE,
        StoreError::Io { .. } => StatusCode::SERVICE_UNAVAILABLE,
        _ => StatusCode::INTERNAL_SERVER_ERROR,
    };
    refused(status, error)
}
