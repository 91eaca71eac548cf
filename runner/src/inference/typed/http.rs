//! Typed methods over plain HTTP: JSON, binary protobuf and CSV by `POST` to the method's path, and Connect's unary form.
//! Source of the latter: <https://connectrpc.com/docs/protocol>.

use std::time::Duration;

use axum::body::Body;
use axum::extract::Request;
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use http::header::{ACCEPT, ALLOW, CONTENT_TYPE};
use http::{HeaderMap, HeaderValue, Method};

use super::call::Call;
use super::csv;
use crate::error::{Code, Error, Result};
use crate::inference::body;
use crate::inference::headers::{REQUIRE_DIGEST_HEADER, named_by};
use crate::inference::infer::Inference;

const CONNECT_VERSION: &str = "connect-protocol-version";
const CONNECT_TIMEOUT: &str = "connect-timeout-ms";

/// The form of a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Form {
    Json,
    /// With the media type to answer with.
    Protobuf(&'static str),
    Csv,
}

impl Form {
    /// The form of a media type; `None` for any other.
    fn of(media_type: &str) -> Option<Self> {
        let media_type = media_type.split(';').next().unwrap_or_default().trim();
        match media_type.to_ascii_lowercase().as_str() {
            // curl calls everything a form that is not told what it is.
            "" | "application/json" | "application/x-www-form-urlencoded" => Some(Self::Json),
            "application/proto" => Some(Self::Protobuf("application/proto")),
            "application/protobuf" => Some(Self::Protobuf("application/protobuf")),
            "application/x-protobuf" => Some(Self::Protobuf("application/x-protobuf")),
            "text/csv" => Some(Self::Csv),
            _ => None,
        }
    }

    fn media_type(self) -> &'static str {
        match self {
            Self::Json => "application/json",
            Self::Protobuf(media_type) => media_type,
            Self::Csv => "text/csv; charset=utf-8",
        }
    }

    /// The form of the request, and of the answer: the first that is accepted, else the request's own.
    fn both(headers: &HeaderMap) -> Result<(Self, Self)> {
        let text = |name| headers.get(name).map(|value: &HeaderValue| value.to_str().unwrap_or("?"));
        let media_type = text(CONTENT_TYPE).unwrap_or_default();
        let request = Self::of(media_type).ok_or_else(|| {
            let shown: String = media_type.chars().take(100).collect();
            Error::new(
                Code::EncodingRefused,
                format!(
                    "the content type {shown:?} is not taken here; send application/json, application/proto, text/csv, \
                     or call over gRPC"
                ),
            )
        })?;
        let accepted = text(ACCEPT).into_iter().flat_map(|accept| accept.split(','));
        let answer = accepted.filter(|offer| !offer.trim().is_empty()).find_map(Self::of);
        Ok((request, answer.unwrap_or(request)))
    }
}

/// Answers what no other route takes: a typed method, or nothing.
pub async fn fallback(inference: Inference, request: Request) -> Response {
    let connect = request.headers().contains_key(CONNECT_VERSION);
    match call(&inference, request).await {
        Ok(response) => response,
        Err(error) if connect => error.into_connect(),
        Err(error) if error.code() == Code::MethodNotAllowed => {
            let mut response = error.into_response();
            response.headers_mut().insert(ALLOW, HeaderValue::from_static("POST"));
            response
        }
        Err(error) => error.into_response(),
    }
}

async fn call(inference: &Inference, request: Request) -> Result<Response> {
    let (parts, body) = request.into_parts();
    let headers = &parts.headers;
    let digest = headers.get(REQUIRE_DIGEST_HEADER).map(|value| value.to_str().unwrap_or_default());
    let named = named_by(headers, inference.limits());
    let call = Call::find(inference, parts.uri.path(), digest, named)?;
    if parts.method != Method::POST {
        return Err(Error::new(Code::MethodNotAllowed, "a typed method is called with POST"));
    }
    let call = call.within(connect_timeout(headers)?);
    let (request, answer) = Form::both(headers)?;
    if request == Form::Csv {
        return csv::serve(call, headers, body).await;
    }
    if call.method()?.is_streaming() {
        return Err(Error::new(
            Code::EncodingRefused,
            "the method has a stream; call it over gRPC, or with text/csv",
        ));
    }
    let bytes = body::read(headers, body, inference.limits()).await?;
    let method = call.method()?;
    let message: Bytes = match request {
        Form::Json => method.request_from_json(&bytes).map(Bytes::from),
        Form::Protobuf(_) | Form::Csv => Ok(bytes),
    }?;
    let written = match answer {
        Form::Csv => csv::one(&call, &message).await?,
        Form::Json => method.response_to_json(call.unary(&message).await?.into())?,
        Form::Protobuf(_) => call.unary(&message).await?,
    };
    let mut response = Response::new(Body::empty());
    call.sign(response.headers_mut());
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(answer.media_type()));
    let written = body::compress(headers, response.headers_mut(), written);
    *response.body_mut() = Body::from(written);
    Ok(response)
}

fn connect_timeout(headers: &HeaderMap) -> Result<Option<Duration>> {
    if let Some(version) = headers.get(CONNECT_VERSION)
        && version != "1"
    {
        return Err(Error::new(Code::BadRequest, "the version of the Connect protocol is 1"));
    }
    let Some(timeout) = headers.get(CONNECT_TIMEOUT) else { return Ok(None) };
    let digits = timeout.to_str().ok().filter(|text| text.len() <= 10);
    let milliseconds = digits
        .and_then(|text| text.parse().ok())
        .ok_or_else(|| Error::new(Code::BadRequest, format!("{CONNECT_TIMEOUT} is at most ten digits")))?;
    Ok(Some(Duration::from_millis(milliseconds)))
}
