//! Reads a request's body within limits of size, time and encoding, and compresses an answer's when asked to.

use std::io::{Read, Write};

use axum::body::Body;
use bytes::{Bytes, BytesMut};
use flate2::Compression;
use flate2::read::{GzDecoder, ZlibDecoder};
use flate2::write::{GzEncoder, ZlibEncoder};
use http::{HeaderMap, HeaderValue, header};
use http_body::Body as _;
use http_body_util::BodyExt;

use crate::config::Limits;
use crate::error::{Code, Error, Result};

/// Answers below this are not worth compressing.
const COMPRESS_FROM: usize = 1024;

/// The whole body, decompressed.
///
/// # Errors
/// `BODY_TOO_LARGE` (before the body is read if its length is announced), `BODY_TOO_SLOW`, `ENCODING_REFUSED`.
pub(super) async fn read(headers: &HeaderMap, mut body: Body, limits: &Limits) -> Result<Bytes> {
    let limit = limits.request_body;
    let too_large = || Error::new(Code::BodyTooLarge, format!("the body is larger than {limit} bytes"));
    let hint = body.size_hint();
    if hint.lower() > limit as u64 {
        return Err(too_large());
    }
    let mut first: Option<Bytes> = None;
    let mut rest = BytesMut::new();
    loop {
        let frame = tokio::time::timeout(limits.body_idle, body.frame());
        let frame = frame.await.map_err(|_| {
            let seconds = limits.body_idle.as_secs();
            Error::new(Code::BodyTooSlow, format!("no byte of the body came for {seconds} s"))
        })?;
        let Some(frame) = frame else { break };
        let frame = frame
            .map_err(|error| Error::new(Code::UploadTruncated, "the body ended early").caused_by(error))?;
        let Ok(data) = frame.into_data() else { continue };
        // Most bodies arrive in one frame, which is then used as it is.
        match &first {
            None => first = Some(data),
            Some(head) => {
                if rest.is_empty() {
                    let announced = usize::try_from(hint.upper().unwrap_or(0)).unwrap_or(0).min(limit);
                    rest.reserve(announced.max(head.len() + data.len()));
                    rest.extend_from_slice(head);
                }
                rest.extend_from_slice(&data);
            }
        }
        if first.as_ref().map_or(0, Bytes::len).max(rest.len()) > limit {
            return Err(too_large());
        }
    }
    let bytes = if rest.is_empty() { first.unwrap_or_default() } else { rest.freeze() };
    decompress(headers, bytes, limit)
}

fn decompress(headers: &HeaderMap, bytes: Bytes, limit: usize) -> Result<Bytes> {
    let Some(encoding) = headers.get(header::CONTENT_ENCODING) else { return Ok(bytes) };
    let inflate = |mut reader: Box<dyn Read>| -> Result<Bytes> {
        let mut out = Vec::new();
        reader.by_ref().take(limit as u64 + 1).read_to_end(&mut out).map_err(|error| {
            Error::new(Code::BadRequest, "the compressed body cannot be read").caused_by(error)
        })?;
        if out.len() > limit {
            return Err(Error::new(
                Code::BodyTooLarge,
                format!("the body unpacks to more than {limit} bytes"),
            ));
        }
        Ok(out.into())
    };
    match encoding.as_bytes() {
        b"identity" => Ok(bytes),
        b"gzip" => inflate(Box::new(GzDecoder::new(std::io::Cursor::new(bytes)))),
        b"deflate" => inflate(Box::new(ZlibDecoder::new(std::io::Cursor::new(bytes)))),
        _ => Err(Error::new(Code::EncodingRefused, "the content encodings are gzip, deflate and identity")),
    }
}

/// Compresses an answer if the caller accepts it. Fast rather than small.
pub(super) fn compress(request: &HeaderMap, response: &mut HeaderMap, bytes: Vec<u8>) -> Vec<u8> {
    let accepted = request.get(header::ACCEPT_ENCODING).and_then(|value| value.to_str().ok());
    let Some(accepted) = accepted.filter(|_| bytes.len() >= COMPRESS_FROM) else { return bytes };
    let offers = |name: &str| {
        accepted.split(',').any(|offer| {
            let mut parts = offer.split(';').map(str::trim);
            parts.next() == Some(name) && parts.next() != Some("q=0")
        })
    };
    let (name, packed) = if offers("gzip") {
        let mut encoder = GzEncoder::new(Vec::with_capacity(bytes.len() / 2), Compression::fast());
        ("gzip", encoder.write_all(&bytes).and_then(|()| encoder.finish()))
    } else if offers("deflate") {
        let mut encoder = ZlibEncoder::new(Vec::with_capacity(bytes.len() / 2), Compression::fast());
        ("deflate", encoder.write_all(&bytes).and_then(|()| encoder.finish()))
    } else {
        return bytes;
    };
    match packed {
        Ok(packed) => {
            response.insert(header::CONTENT_ENCODING, HeaderValue::from_static(name));
            packed
        }
        // Writing to memory does not fail; were it to, the plain answer is right too.
        Err(_) => bytes,
    }
}
