//! The one place that turns an [`Error`] into an HTTP answer or a gRPC status.
//!
//! REST body: `{"error": "<text>", "code": "BAD_SHAPE", "source": "request", "request_id": "..."}` and `details` where
//! there are any; it has the `error` member that Open Inference Protocol clients print. gRPC: the status with the same
//! facts as `google.rpc.ErrorInfo` in its details.

use std::collections::HashMap;

use axum::body::Body;
use axum::response::{IntoResponse, Response};
use http::{HeaderValue, StatusCode, header};
use serde::Serialize;
use tonic_types::{ErrorDetails, StatusExt};

use super::{Code, Error, Origin};

/// The body of every error over HTTP.
#[derive(Debug, Serialize, utoipa::ToSchema)]
pub struct ErrorBody<'a> {
    /// What was expected and what came.
    pub error: &'a str,
    /// Stable code; `baton errors CODE` and `docs/errors/` explain each.
    pub code: &'a str,
    /// `request`, `model`, `runner` or `dependency`.
    #[schema(value_type = String)]
    pub source: Origin,
    /// Names this failure in the server's log.
    pub request_id: &'a str,
    /// Machine-readable facts, by code.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Object>)]
    pub details: Option<&'a serde_json::Value>,
}

impl Error {
    /// The HTTP status of this failure.
    pub fn status(&self) -> StatusCode {
        StatusCode::from_u16(self.code.http_status()).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR)
    }

    /// Writes the failure to the log and returns the id under which it stands there.
    fn log(&self) -> String {
        let request_id = uuid::Uuid::new_v4().simple().to_string();
        let cause = self.cause_chain();
        let cause = cause.as_deref().unwrap_or("");
        match self.code.origin() {
            Origin::Request => {
                tracing::debug!(code = self.code.id(), request_id, cause, "refused: {}", self.text())
            }
            _ => tracing::warn!(code = self.code.id(), request_id, cause, "failed: {}", self.text()),
        }
        request_id
    }
}

impl Error {
    /// The answer in the shape of the Connect protocol: `{"code": "invalid_argument", "message": "..."}`, with that
    /// protocol's statuses. Source: <https://connectrpc.com/docs/protocol#error-codes>.
    pub fn into_connect(self) -> Response {
        let (status, code) = match self.code.grpc_code() {
            _ if self.code == Code::EncodingRefused => (415, "invalid_argument"),
            tonic::Code::Cancelled => (499, "canceled"),
            tonic::Code::InvalidArgument => (400, "invalid_argument"),
            tonic::Code::DeadlineExceeded => (504, "deadline_exceeded"),
            tonic::Code::NotFound => (404, "not_found"),
            tonic::Code::AlreadyExists => (409, "already_exists"),
            tonic::Code::PermissionDenied => (403, "permission_denied"),
            tonic::Code::ResourceExhausted => (429, "resource_exhausted"),
            tonic::Code::FailedPrecondition => (400, "failed_precondition"),
            tonic::Code::Aborted => (409, "aborted"),
            tonic::Code::OutOfRange => (400, "out_of_range"),
            tonic::Code::Unimplemented => (501, "unimplemented"),
            tonic::Code::Internal => (500, "internal"),
            tonic::Code::Unavailable => (503, "unavailable"),
            tonic::Code::DataLoss => (500, "data_loss"),
            tonic::Code::Unauthenticated => (401, "unauthenticated"),
            tonic::Code::Ok | tonic::Code::Unknown => (500, "unknown"),
        };
        let request_id = self.log();
        let body = serde_json::json!({
            "code": code,
            "message": format!("{}: {}", self.code.id(), self.text()),
            "details": [],
        });
        tracing::debug!(request_id, "answered in Connect's form");
        let mut response = Response::new(Body::from(body.to_string()));
        *response.status_mut() = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
        response
    }
}

impl IntoResponse for Error {
    fn into_response(self) -> Response {
        let request_id = self.log();
        let body = ErrorBody {
            error: self.text(),
            code: self.code.id(),
            source: self.code.origin(),
            request_id: &request_id,
            details: self.details(),
        };
        let bytes = serde_json::to_vec(&body).unwrap_or_default();
        let mut response = Response::new(Body::from(bytes));
        *response.status_mut() = self.status();
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
        if let Some(seconds) = self.code.retry_after() {
            headers.insert(header::RETRY_AFTER, HeaderValue::from(seconds));
        }
        if self.code == Code::NoCredentials {
            headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        response
    }
}

impl From<Error> for tonic::Status {
    fn from(error: Error) -> Self {
        let request_id = error.log();
        let origin = serde_json::to_value(error.code.origin()).ok();
        let origin = origin.as_ref().and_then(|value| value.as_str()).unwrap_or_default().to_owned();
        let metadata = HashMap::from([("source".to_owned(), origin), ("request_id".to_owned(), request_id)]);
        let details = ErrorDetails::with_error_info(error.code.id(), "baton", metadata);
        tonic::Status::with_error_details(error.code.grpc_code(), error.text().to_owned(), details)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn http_and_grpc_carry_the_same_facts() {
        for code in Code::ALL {
            let response = Error::new(*code, "text").into_response();
            assert_eq!(response.status().as_u16(), code.http_status(), "{code:?}");
            let status = tonic::Status::from(Error::new(*code, "text"));
            assert_eq!(status.code(), code.grpc_code());
            let info = status.get_error_details().error_info().cloned().expect("details hold an ErrorInfo");
            assert_eq!(info.reason, code.id());
        }
    }
}
