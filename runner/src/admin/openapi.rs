//! Collects routes and document in one list, so that neither can lack what the other has; serves Swagger UI.

use std::sync::Arc;

use axum::extract::{DefaultBodyLimit, State};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use http::HeaderMap;
use utoipa::OpenApi;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;
use utoipa_swagger_ui::{Config, SwaggerUi};

use super::{history, models, push, reference, trial, versions};
use crate::contract;
use crate::error::extract::Path;
use crate::error::{Code, Error, Result};
use crate::model::Models;

#[derive(OpenApi)]
#[openapi(
    info(
        title = "Baton admin API",
        description = "Push, activate, roll back and watch models. Errors: `GET /v1/errors/{code}`."
    ),
    // Registered under the path of the model itself: one segment holds name and action, see `model_action`.
    paths(models::rollback, versions::activate),
    // Stands in a query, which does not register its type.
    components(schemas(push::BreakingQuery))
)]
struct Document;

pub(super) fn routes() -> OpenApiRouter<Arc<Models>> {
    OpenApiRouter::with_openapi(Document::openapi())
        .routes(routes!(models::list))
        .routes(routes!(models::show, models::remove, push::bundle))
        .routes(routes!(push::artifact))
        .routes(routes!(push::contract, models::contract))
        .routes(routes!(trial::run))
        .routes(routes!(trial::convert))
        .routes(routes!(push::manifest))
        .routes(routes!(versions::list))
        .routes(routes!(versions::show, versions::remove))
        .routes(routes!(versions::part))
        .routes(routes!(history::history))
        .routes(routes!(reference::limits))
        .routes(routes!(reference::error_page))
        .routes(routes!(reference::metrics))
        .route("/v1/models/{model}", post(model_action))
        .route("/v1/models/{model}/versions/{version}", post(versions::activate))
        // Every upload is counted against its own part's limit while it is streamed to disk.
        .layer(DefaultBodyLimit::disable())
}

/// `POST /v1/models/{model}:rollback`: the router takes whole segments, so the action is cut off here.
async fn model_action(
    State(state): State<Arc<Models>>,
    Path(segment): Path<String>,
    headers: HeaderMap,
) -> Result<Response> {
    match segment.split_once(':') {
        Some((model, "rollback")) => Ok(models::rollback(state, model, &headers).await?.into_response()),
        _ => Err(Error::new(Code::RouteUnknown, "the one action of a model is :rollback")),
    }
}

/// Swagger UI, and the document with the typed services of the moment.
pub(super) fn pages(models: Arc<Models>, document: &utoipa::openapi::OpenApi) -> Router {
    // Plain data with string keys is always JSON.
    let document = serde_json::to_value(document).unwrap_or_default();
    let whole = move |State(models): State<Arc<Models>>| {
        let mut document = document.clone();
        async move {
            let snapshot = models.board().load();
            let mut active: Vec<_> = snapshot.iter().filter_map(|served| served.active().ok()).collect();
            active.sort_by_key(|version| version.identity.model.clone());
            for version in active {
                if let Some(contract) = &version.contract {
                    contract::openapi::add_to(
                        &mut document,
                        version.identity.model.as_str(),
                        &contract.methods,
                    );
                }
            }
            Json(document)
        }
    };
    let swagger = SwaggerUi::new("/docs").config(Config::from("/openapi.json"));
    Router::new().route("/openapi.json", get(whole)).with_state(models).merge(swagger)
}
