//! The admin API, one resource a file. Stands on `model`; never sees inference.
//!
//! | file | calls |
//! | --- | --- |
//! | `push` | `PUT /v1/models/{model}`, `.../artifact`, `.../contract`, `.../manifest` |
//! | `models` | list, show, remove, roll back |
//! | `versions` | list, show, activate, remove, read parts back |
//! | `history` | `GET /v1/history` |
//! | `trial` | `POST /v1/try`, `/v1/convert` |
//! | `reference` | limits, errors, metrics |
//! | `openapi` | the document, Swagger UI |

mod history;
mod models;
mod openapi;
mod push;
mod receive;
mod reference;
mod trial;
mod versions;
pub mod wire;

use std::sync::Arc;

use axum::Router;
use http::{HeaderMap, header};

use crate::error::{Code, Error, Result};
use crate::model::Models;

/// All routes of the admin API and its documentation.
pub fn router(models: Arc<Models>) -> Router {
    let (router, document) = openapi::routes().split_for_parts();
    router.with_state(Arc::clone(&models)).merge(openapi::pages(models, &document))
}

/// The OpenAPI document, without a server behind it.
pub fn document() -> utoipa::openapi::OpenApi {
    openapi::routes().into_openapi()
}

/// `If-Match: "<generation>"`
fn expected_generation(headers: &HeaderMap) -> Result<Option<u64>> {
    let Some(value) = headers.get(header::IF_MATCH) else { return Ok(None) };
    let text = value.to_str().unwrap_or_default().trim();
    if text == "*" {
        return Ok(None);
    }
    let digits = text.strip_prefix('"').and_then(|text| text.strip_suffix('"')).unwrap_or(text);
    digits
        .parse()
        .map(Some)
        .map_err(|_| Error::new(Code::BadRequest, "If-Match is a generation in quotes, \"7\""))
}
