//! `GET /v1/blobs/sha256:HEX`: a blob of the store, verified.

use std::sync::Arc;

use axum::Router;
use axum::extract::{Path, State};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use http::StatusCode;
use http::header::{CONTENT_DISPOSITION, CONTENT_TYPE, ETAG, X_CONTENT_TYPE_OPTIONS};
use tokio::sync::Semaphore;

use super::super::Engine;
use super::refused;
use crate::store::{Digest, StoreError};

/// Bytes of a blob that is given out: it is verified as a whole, in memory.
const LIMIT: u64 = 256 * 1024 * 1024;
/// Blobs in memory at a time.
static READS: Semaphore = Semaphore::const_new(2);

pub(super) fn routes() -> Router<Arc<Engine>> {
    Router::new().route("/v1/blobs/{digest}", get(blob))
}

async fn blob(State(engine): State<Arc<Engine>>, Path(digest): Path<String>) -> Response {
    let found = async {
        let digest: Digest = digest.parse()?;
        let _permit = READS.acquire().await;
        engine.store.get(&digest, LIMIT).await.map(|bytes| (digest, bytes))
    };
    match found.await {
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
        Err(error) => {
            let status = match error {
                StoreError::BadDigest(_) => StatusCode::BAD_REQUEST,
                StoreError::Missing(_) => StatusCode::NOT_FOUND,
                StoreError::TooLarge(..) => StatusCode::PAYLOAD_TOO_LARGE,
                StoreError::Io { .. } => StatusCode::SERVICE_UNAVAILABLE,
                _ => StatusCode::INTERNAL_SERVER_ERROR,
            };
            refused(status, error)
        }
    }
}
