//! Receives uploads: streamed to the store's staging, with limits of size and rate.

use std::time::{Duration, Instant};

use axum::body::Body;
use axum::extract::multipart::{Multipart, MultipartError};
use bytes::Bytes;
use futures_util::StreamExt;
use http::{HeaderMap, header};
use http_body::Body as _;

use crate::bundle::PartKind;
use crate::config::Limits;
use crate::contract::MessageForm;
use crate::error::{Code, Error, Result};
use crate::store::{Staged, Staging, Store};

/// Uploads may be slow for this long before the average counts.
const GRACE: Duration = Duration::from_secs(30);
/// Parts in one multipart push; there are six kinds.
const MAX_PARTS: usize = 16;

fn part_limit(kind: PartKind, limits: &Limits) -> u64 {
    match kind {
        PartKind::Artifact => limits.artifact,
        PartKind::Contract => limits.contract,
        PartKind::Manifest => limits.manifest,
        PartKind::Golden => limits.golden,
        PartKind::Provenance => limits.provenance,
        PartKind::Signature => limits.signature,
    }
}

/// An upload being watched for its rate.
struct Pace<'a> {
    limits: &'a Limits,
    started: Instant,
    received: u64,
}

impl<'a> Pace<'a> {
    fn start(limits: &'a Limits) -> Self {
        Self { limits, started: Instant::now(), received: 0 }
    }

    async fn next<T>(&self, chunk: impl Future<Output = T>) -> Result<T> {
        tokio::time::timeout(self.limits.upload_idle, chunk).await.map_err(|_| {
            let seconds = self.limits.upload_idle.as_secs();
            Error::new(Code::UploadTooSlow, format!("no byte of the upload came for {seconds} s"))
        })
    }

    fn count(&mut self, bytes: usize) -> Result<()> {
        self.received += bytes as u64;
        let elapsed = self.started.elapsed();
        if elapsed > GRACE && self.received < self.limits.upload_floor.saturating_mul(elapsed.as_secs()) {
            let floor = self.limits.upload_floor >> 10;
            return Err(Error::new(Code::UploadTooSlow, format!("the upload is slower than {floor} KiB/s")));
        }
        Ok(())
    }
}

/// Writes one chunk, off the thread's other tasks: a slow disk must not hold up the admin port.
fn write(staging: &mut Staging, chunk: &[u8], kind: PartKind, limits: &Limits) -> Result<()> {
    let limit = part_limit(kind, limits);
    if staging.size() + chunk.len() as u64 > limit {
        return Err(too_large(kind, limit));
    }
    tokio::task::block_in_place(|| staging.write(chunk)).map_err(Error::from)
}

fn too_large(kind: PartKind, limit: u64) -> Error {
    let code = if kind == PartKind::Contract { Code::ContractTooLarge } else { Code::UploadTooLarge };
    Error::new(code, format!("the {} is larger than {limit} bytes", kind.name()))
}

/// Receives a raw body as one part.
pub(super) async fn raw(
    store: &Store,
    limits: &Limits,
    headers: &HeaderMap,
    body: Body,
    kind: PartKind,
) -> Result<Staged> {
    refuse_encoding(headers)?;
    let limit = part_limit(kind, limits);
    if body.size_hint().lower() > limit {
        return Err(too_large(kind, limit));
    }
    let mut staging = store.stage()?;
    let mut pace = Pace::start(limits);
    let mut chunks = body.into_data_stream();
    while let Some(chunk) = pace.next(chunks.next()).await? {
        let chunk = chunk.map_err(truncated)?;
        pace.count(chunk.len())?;
        write(&mut staging, &chunk, kind, limits)?;
    }
    tokio::task::block_in_place(|| staging.finish()).map_err(Error::from)
}

/// Receives a multipart body; parts that are not known are refused, file names are ignored.
pub(super) async fn multipart(
    store: &Store,
    limits: &Limits,
    headers: &HeaderMap,
    mut form: Multipart,
) -> Result<std::collections::BTreeMap<PartKind, Staged>> {
    refuse_encoding(headers)?;
    let mut parts = std::collections::BTreeMap::new();
    let mut pace = Pace::start(limits);
    while let Some(mut field) = pace.next(form.next_field()).await?.map_err(bad_multipart)? {
        let name = field.name().unwrap_or_default();
        let kind = PartKind::ALL.into_iter().find(|kind| kind.form_name() == name).ok_or_else(|| {
            let names: Vec<&str> = PartKind::ALL.iter().map(|kind| kind.form_name()).collect();
            let shown: String = name.chars().take(64).collect();
            Error::new(Code::BadMultipart, format!("there is no part {shown:?}; the parts are {names:?}"))
        })?;
        if parts.len() >= MAX_PARTS || parts.contains_key(&kind) {
            return Err(Error::new(
                Code::BadMultipart,
                format!("part {:?} is given twice", kind.form_name()),
            ));
        }
        let mut staging = store.stage()?;
        while let Some(chunk) = pace.next(field.chunk()).await?.map_err(bad_multipart)? {
            let chunk: Bytes = chunk;
            pace.count(chunk.len())?;
            write(&mut staging, &chunk, kind, limits)?;
        }
        let staged = tokio::task::block_in_place(|| staging.finish())?;
        parts.insert(kind, staged);
    }
    if parts.is_empty() {
        return Err(Error::new(Code::UploadEmpty, "the push holds no part"));
    }
    Ok(parts)
}

/// Nothing is unpacked: what is stored is what was hashed by the sender.
fn refuse_encoding(headers: &HeaderMap) -> Result<()> {
    match headers.get(header::CONTENT_ENCODING) {
        Some(encoding) if encoding != "identity" => Err(Error::new(
            Code::EncodingRefused,
            "uploads are taken as they are, without a content encoding",
        )),
        _ => Ok(()),
    }
}

fn truncated(error: axum::Error) -> Error {
    Error::new(Code::UploadTruncated, "the upload ended before it was complete").caused_by(error)
}

fn bad_multipart(error: MultipartError) -> Error {
    let text = error.body_text();
    let code = if text.contains("incomplete") || text.contains("stream") {
        Code::UploadTruncated
    } else {
        Code::BadMultipart
    };
    Error::new(code, "the multipart body is incomplete or damaged").caused_by(error)
}

/// The parts of a trial, in memory: what is loaded has to be there anyway.
#[derive(Debug, Default)]
pub(super) struct TrialParts {
    pub model: Option<Vec<u8>>,
    pub contract: Option<Vec<u8>>,
    pub manifest: Option<Vec<u8>>,
    pub input: Option<(Vec<u8>, MessageForm)>,
}

/// Receives a trial's multipart body.
pub(super) async fn trial(limits: &Limits, mut form: Multipart) -> Result<TrialParts> {
    let mut parts = TrialParts::default();
    let mut pace = Pace::start(limits);
    while let Some(mut field) = pace.next(form.next_field()).await?.map_err(bad_multipart)? {
        let name = field.name().unwrap_or_default().to_owned();
        let form = message_form(field.content_type(), field.file_name());
        let limit = match name.as_str() {
            "model" => limits.artifact,
            "contract" => limits.contract,
            "manifest" => limits.manifest,
            "input" => limits.request_body as u64,
            _ => {
                let shown: String = name.chars().take(64).collect();
                let text =
                    format!("there is no part {shown:?}; the parts are model, contract, manifest, input");
                return Err(Error::new(Code::BadMultipart, text));
            }
        };
        let mut bytes = Vec::new();
        while let Some(chunk) = pace.next(field.chunk()).await?.map_err(bad_multipart)? {
            pace.count(chunk.len())?;
            if (bytes.len() + chunk.len()) as u64 > limit {
                let code = if name == "contract" { Code::ContractTooLarge } else { Code::UploadTooLarge };
                return Err(Error::new(code, format!("the {name} is larger than {limit} bytes")));
            }
            bytes.extend_from_slice(&chunk);
        }
        match name.as_str() {
            "model" => parts.model = Some(bytes),
            "contract" => parts.contract = Some(bytes),
            "manifest" => parts.manifest = Some(bytes),
            _ => parts.input = Some((bytes, form)),
        }
    }
    Ok(parts)
}

/// The form of an input, by its part's content type, else by its file name.
fn message_form(content_type: Option<&str>, file_name: Option<&str>) -> MessageForm {
    let media_type = content_type.unwrap_or_default().split(';').next().unwrap_or_default().trim();
    let extension = file_name.and_then(|name| name.rsplit_once('.')).map(|(_, extension)| extension);
    match (media_type, extension) {
        ("application/json", _) | (_, Some("json")) => MessageForm::Json,
        ("text/csv", _) | (_, Some("csv")) => MessageForm::Csv,
        _ => MessageForm::Protobuf,
    }
}
