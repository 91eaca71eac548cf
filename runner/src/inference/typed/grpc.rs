//! Typed methods over gRPC: unary, and streams on either side. tonic carries frames, deadlines and compression; what is
//! in a frame passes as bytes.

use bytes::{Buf, BufMut, Bytes};
use futures_util::stream::{self, BoxStream, StreamExt};
use http_body::Body as HttpBody;
use tonic::codec::{BufferSettings, Codec, CompressionEncoding, DecodeBuf, Decoder, EncodeBuf, Encoder};
use tonic::metadata::MetadataMap;
use tonic::server::Grpc;
use tonic::{Request, Response, Status, Streaming};

use super::call::Call;
use crate::error::{Code, Error};
use crate::inference::headers::CallOptions;
use crate::inference::infer::Inference;

/// Messages as they are.
#[derive(Default)]
struct Raw;

impl Codec for Raw {
    type Encode = Vec<u8>;
    type Decode = Bytes;
    type Encoder = Self;
    type Decoder = Self;

    fn encoder(&mut self) -> Self {
        Self
    }

    fn decoder(&mut self) -> Self {
        Self
    }
}

impl Encoder for Raw {
    type Item = Vec<u8>;
    type Error = Status;

    fn encode(&mut self, message: Vec<u8>, out: &mut EncodeBuf<'_>) -> Result<(), Status> {
        out.put_slice(&message);
        Ok(())
    }

    fn buffer_settings(&self) -> BufferSettings {
        BufferSettings::default()
    }
}

impl Decoder for Raw {
    type Item = Bytes;
    type Error = Status;

    fn decode(&mut self, from: &mut DecodeBuf<'_>) -> Result<Option<Bytes>, Status> {
        Ok(Some(from.copy_to_bytes(from.remaining())))
    }

    fn buffer_settings(&self) -> BufferSettings {
        BufferSettings::default()
    }
}

/// Answers a call to any typed method.
pub(in crate::inference) async fn serve<B>(
    inference: &Inference,
    request: http::Request<B>,
) -> http::Response<tonic::body::Body>
where
    B: HttpBody + Send + 'static,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>> + Send + 'static,
{
    let CallOptions { require_digest, timeout, request_id } =
        CallOptions::read(request.headers(), inference.limits());
    let call = Call::find(inference, request.uri().path(), require_digest.as_deref(), request_id)
        .map(|call| call.within(timeout));
    let kind = call.and_then(|call| {
        let method = &call.method()?.descriptor;
        Ok((method.is_client_streaming(), method.is_server_streaming(), call))
    });
    let (client_streams, server_streams, call) = match kind {
        Ok(found) => found,
        Err(error) => return Status::from(error).into_http(),
    };
    let mut grpc = Grpc::new(Raw)
        .accept_compressed(CompressionEncoding::Gzip)
        .accept_compressed(CompressionEncoding::Deflate)
        .max_decoding_message_size(inference.limits().request_body)
        .max_encoding_message_size(usize::MAX);
    match (client_streams, server_streams) {
        (false, false) => {
            let service = tower::service_fn(|request: Request<Bytes>| {
                let call = call.clone();
                async move { signed(&call, call.unary(request.get_ref()).await?) }
            });
            grpc.unary(service, request).await
        }
        (false, true) => {
            let service = tower::service_fn(|request: Request<Bytes>| {
                let call = call.clone();
                async move {
                    let answers = call.answers(request.get_ref()).await?;
                    signed(&call, stream::iter(answers.into_iter().map(Ok::<_, Status>)).boxed())
                }
            });
            grpc.server_streaming(service, request).await
        }
        (true, false) => {
            let service = tower::service_fn(|request: Request<Streaming<Bytes>>| {
                let call = call.clone();
                async move { signed(&call, gather(&call, request.into_inner()).await?) }
            });
            grpc.client_streaming(service, request).await
        }
        (true, true) => {
            let service = tower::service_fn(|request: Request<Streaming<Bytes>>| {
                let call = call.clone();
                async move { signed(&call, converse(call.clone(), request.into_inner())) }
            });
            grpc.streaming(service, request).await
        }
    }
}

/// An answer that says who gave it.
fn signed<T>(call: &Call, message: T) -> Result<Response<T>, Status> {
    let mut headers = http::HeaderMap::with_capacity(8);
    call.sign(&mut headers);
    Ok(Response::from_parts(MetadataMap::from_headers(headers), message, tonic::Extensions::default()))
}

/// All messages of a stream as one batch.
async fn gather(call: &Call, mut messages: Streaming<Bytes>) -> Result<Vec<u8>, Status> {
    let limit = call.inference.limits().request_body;
    let mut decoding = call.method()?.request.start();
    let mut bytes = 0_usize;
    while let Some(message) = messages.message().await? {
        bytes = bytes.saturating_add(message.len());
        if bytes > limit {
            return Err(
                Error::new(Code::BodyTooLarge, format!("the stream is larger than {limit} bytes")).into()
            );
        }
        decoding.message(&message)?;
    }
    Ok(call.answer(decoding.finish()).await?)
}

/// Each message is answered before the next one is read. Its deadline is the stream's own, which tonic's transport
/// keeps; a single answer has the server's limit.
fn converse(call: Call, messages: Streaming<Bytes>) -> BoxStream<'static, Result<Vec<u8>, Status>> {
    let call = call.within(None);
    let pending: std::collections::VecDeque<Vec<u8>> = std::collections::VecDeque::new();
    stream::try_unfold(
        (call, messages, pending, 0),
        |(call, mut messages, mut pending, mut number)| async move {
            loop {
                if let Some(answer) = pending.pop_front() {
                    return Ok(Some((answer, (call, messages, pending, number))));
                }
                let Some(message) = messages.message().await? else { return Ok(None) };
                pending.extend(call.message(number).answers(&message).await?);
                number += 1;
            }
        },
    )
    .boxed()
}
