//! CSV in and out, of any size in constant memory.
//!
//! A thread of its own reads records, runs them in batches and writes the answers to a spool (memory first, then disk);
//! the answer is sent when the last row has been answered. So the status is true, an error names its line, and a client
//! that sends everything before it reads anything is not locked in.

use std::io::Read;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::response::Response;
use bytes::Bytes;
use flate2::read::{GzDecoder, ZlibDecoder};
use http::header::{CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE};
use http::{HeaderMap, HeaderValue};
use http_body_util::BodyExt;
use tokio::sync::{mpsc, oneshot};

use super::call::Call;
use crate::contract::csv::{CsvError, Guard, RecordReader, Table};
use crate::contract::{Decoding, Method};
use crate::engine::step_back;
use crate::error::{Code, Error, Result};
use crate::store::Spool;

/// Rows run at once.
const BATCH_ROWS: usize = 512;
/// Bytes of messages run at once.
const BATCH_BYTES: usize = 1 << 20;
/// Pieces of the body that wait to be read.
const WAITING: usize = 16;
/// Bytes sent at a time.
const CHUNK: usize = 256 << 10;

/// A piece of the body, or its end. A channel that ends otherwise is a caller that has left.
enum Piece {
    Data(Bytes),
    End,
}

/// Answers a file.
pub(super) async fn serve(call: Call, headers: &HeaderMap, body: Body) -> Result<Response> {
    let place = Arc::clone(call.inference.csv_places()).try_acquire_owned().map_err(|_| {
        Error::new(Code::Overloaded, "as many CSV files as the limit are being answered; try again shortly")
    })?;
    let (sender, receiver) = mpsc::channel(WAITING);
    let reader = decompressed(headers, Pieces { receiver, current: Bytes::new(), ended: false })?;
    let (idle, signing) = (call.inference.limits().body_idle, call.clone());
    let runtime = tokio::runtime::Handle::current();
    let (result, answered) = oneshot::channel();
    let (chunks, mut sent) = mpsc::channel(1);
    let job = move || {
        step_back(5);
        let answered = Job::start(&call, runtime).and_then(|job| job.run(reader));
        drop(place);
        match answered {
            Ok(spool) => {
                if result.send(Ok(spool.len())).is_ok() {
                    send(spool, &chunks);
                }
            }
            Err(error) => drop(result.send(Err(error))),
        }
    };
    std::thread::Builder::new()
        .name("baton-csv".to_owned())
        .spawn(job)
        .map_err(|error| Error::new(Code::Internal, "cannot start a thread").caused_by(error))?;
    pump(body, &sender, idle).await?;
    let length = answered
        .await
        .unwrap_or_else(|_| Err(Error::new(Code::Internal, "the CSV job ended unexpectedly")))?;
    let mut response = Response::new(Body::empty());
    signing.sign(response.headers_mut());
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("text/csv; charset=utf-8"));
    response.headers_mut().insert(CONTENT_LENGTH, HeaderValue::from(length));
    *response.body_mut() =
        Body::from_stream(futures_util::stream::poll_fn(move |context| sent.poll_recv(context)));
    Ok(response)
}

/// Hands the body over, piece by piece.
async fn pump(mut body: Body, to: &mpsc::Sender<Piece>, idle: Duration) -> Result<()> {
    loop {
        let frame = tokio::time::timeout(idle, body.frame()).await.map_err(|_| {
            Error::new(Code::BodyTooSlow, format!("no byte of the body came for {} s", idle.as_secs()))
        })?;
        let piece = match frame {
            None => Piece::End,
            Some(Ok(frame)) => match frame.into_data() {
                Ok(data) => Piece::Data(data),
                Err(_) => continue,
            },
            Some(Err(error)) => {
                return Err(Error::new(Code::UploadTruncated, "the body ended early").caused_by(error));
            }
        };
        let ended = matches!(piece, Piece::End);
        // If nobody takes it, the job has ended with an error, which is what counts.
        if to.send(piece).await.is_err() || ended {
            return Ok(());
        }
    }
}

/// Sends what was spooled, as fast as it is taken.
fn send(mut spool: Spool, to: &mpsc::Sender<std::io::Result<Bytes>>) {
    loop {
        let mut chunk = vec![0; CHUNK];
        match spool.read(&mut chunk) {
            Ok(0) => return,
            Ok(count) => {
                chunk.truncate(count);
                if to.blocking_send(Ok(chunk.into())).is_err() {
                    return;
                }
            }
            Err(error) => return drop(to.blocking_send(Err(error))),
        }
    }
}

/// Answers one message, as CSV.
pub(super) async fn one(call: &Call, message: &Bytes) -> Result<Vec<u8>> {
    let answer = call.run(call.method()?.request.decode(message)).await?;
    let mut table = Table::new(Vec::new());
    if let Some(answer) = answer {
        call.encode(&answer, |method, tensors| table.write(method, tensors))?;
    }
    table.finish(call.method()?)
}

fn decompressed(headers: &HeaderMap, pieces: Pieces) -> Result<Box<dyn Read + Send>> {
    match headers.get(CONTENT_ENCODING).map(HeaderValue::as_bytes) {
        None | Some(b"identity") => Ok(Box::new(pieces)),
        Some(b"gzip") => Ok(Box::new(GzDecoder::new(pieces))),
        Some(b"deflate") => Ok(Box::new(ZlibDecoder::new(pieces))),
        Some(_) => {
            Err(Error::new(Code::EncodingRefused, "the content encodings are gzip, deflate and identity"))
        }
    }
}

/// The body as a file.
struct Pieces {
    receiver: mpsc::Receiver<Piece>,
    current: Bytes,
    ended: bool,
}

impl Read for Pieces {
    fn read(&mut self, into: &mut [u8]) -> std::io::Result<usize> {
        while self.current.is_empty() && !self.ended {
            match self.receiver.blocking_recv() {
                Some(Piece::Data(data)) => self.current = data,
                Some(Piece::End) => self.ended = true,
                None => return Err(std::io::Error::other("the caller has left")),
            }
        }
        let count = into.len().min(self.current.len());
        let taken = self.current.split_to(count);
        if let Some(into) = into.get_mut(..count) {
            into.copy_from_slice(&taken);
        }
        Ok(count)
    }
}

/// A file being answered.
struct Job<'a> {
    call: &'a Call,
    method: &'a Method,
    runtime: tokio::runtime::Handle,
    table: Table<Spool>,
    /// Rows that were answered.
    rows: u64,
}

impl<'a> Job<'a> {
    fn start(call: &'a Call, runtime: tokio::runtime::Handle) -> Result<Self> {
        let table = Table::new(call.inference.models().store().spool());
        Ok(Self { call, method: call.method()?, runtime, table, rows: 0 })
    }

    fn run(mut self, reader: Box<dyn Read + Send>) -> Result<Spool> {
        let mut records = ::csv::ReaderBuilder::new().buffer_capacity(CHUNK).from_reader(Guard::new(reader));
        let header = records.headers().map_err(CsvError::from)?.clone();
        let ignored = |field: &prost_reflect::FieldDescriptor| self.method.is_ignored(field);
        let columns = RecordReader::new(&self.method.request_row, &header, &ignored)?;
        let batch_rows = if self.method.request.takes_batches() { BATCH_ROWS } else { 1 };

        let mut record = ::csv::StringRecord::new();
        let mut message = Vec::new();
        let (mut rows, mut bytes, mut first_line, mut last_line) = (0, 0, 2, 1);
        let mut decoding = self.method.request.start();
        while records.read_record(&mut record).map_err(|error| CsvError::from(error).after(last_line))? {
            let line = record.position().map_or(0, ::csv::Position::line);
            last_line = line;
            if rows == 0 {
                first_line = line;
            }
            message.clear();
            columns.read(&record, &mut message)?;
            decoding.row(&Bytes::copy_from_slice(&message)).map_err(|error| at_line(&error, line, line))?;
            rows += 1;
            bytes += message.len();
            if rows >= batch_rows || bytes >= BATCH_BYTES {
                let full = std::mem::replace(&mut decoding, self.method.request.start());
                self.answer(full, first_line, line)?;
                (rows, bytes) = (0, 0);
            }
        }
        if rows > 0 {
            self.answer(decoding, first_line, last_line)?;
        }
        let mut spool = self.table.finish(self.method)?;
        spool
            .rewind()
            .map_err(|error| Error::new(Code::StoreIo, "the answers cannot be read back").caused_by(error))?;
        Ok(spool)
    }

    /// Runs a batch and writes its answers.
    fn answer(&mut self, decoding: Decoding<'_>, first_line: u64, last_line: u64) -> Result<()> {
        let decoded = decoding.finish();
        let call = self.call.piece(self.rows);
        self.rows += decoded.as_ref().map_or(0, |decoded| decoded.rows as u64);
        let answer = self.runtime.block_on(call.run(decoded));
        let answer = answer.map_err(|error| at_line(&error, first_line, last_line))?;
        let Some(answer) = answer else { return Ok(()) };
        let table = &mut self.table;
        self.call
            .encode(&answer, |method, tensors| table.write(method, tensors))
            .map_err(|error| at_line(&error, first_line, last_line))
    }
}

/// A refusal of rows, with where they stand.
fn at_line(error: &Error, first: u64, last: u64) -> Error {
    let place = if first == last { format!("line {first}") } else { format!("lines {first} to {last}") };
    Error::new(error.code(), format!("{place}: {}", error.text()))
        .with_details(serde_json::json!({ "line": first }))
}
