//! Extractors of paths and queries whose refusals are our errors, in our form, instead of axum's plain text.

use axum::extract::rejection::{PathRejection, QueryRejection};
use axum::extract::{FromRequestParts, Path as AxumPath, Query as AxumQuery};
use http::request::Parts;
use serde::de::DeserializeOwned;

use super::{Code, Error};

/// Parameters in the path.
#[derive(Debug)]
pub struct Path<T>(pub T);

/// Parameters in the query.
#[derive(Debug)]
pub struct Query<T>(pub T);

impl<T: DeserializeOwned + Send, S: Send + Sync> FromRequestParts<S> for Path<T> {
    type Rejection = Error;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Error> {
        let path = AxumPath::from_request_parts(parts, state).await.map_err(|rejection: PathRejection| {
            Error::new(Code::BadName, "a name in the path is no UTF-8 text").caused_by(rejection)
        })?;
        Ok(Self(path.0))
    }
}

impl<T: DeserializeOwned, S: Send + Sync> FromRequestParts<S> for Query<T> {
    type Rejection = Error;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Error> {
        let query =
            AxumQuery::from_request_parts(parts, state).await.map_err(|rejection: QueryRejection| {
                // The parser names the parameter and what it takes, and quotes nothing but the query.
                let text = rejection.body_text();
                let reason = text.rsplit("query string: ").next().unwrap_or_default().to_owned();
                Error::new(Code::BadRequest, format!("the query cannot be read: {reason}"))
                    .caused_by(rejection)
            })?;
        Ok(Self(query.0))
    }
}
