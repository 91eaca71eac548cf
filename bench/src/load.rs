//! The load generator: callers that send their next request when the last one was answered.
//!
//! It sends prepared bytes and looks only at status and length, so that its own cost stays small and the same for both
//! servers.

use std::time::{Duration, Instant};

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// What is sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Grpc,
    /// A typed method over gRPC.
    Typed,
    Binary,
    Json,
}

impl Kind {
    pub const ALL: [Kind; 3] = [Kind::Grpc, Kind::Binary, Kind::Json];

    pub fn name(self) -> &'static str {
        match self {
            Kind::Grpc => "OIP gRPC",
            Kind::Typed => "typed gRPC",
            Kind::Binary => "OIP REST, binary tensor",
            Kind::Json => "OIP REST, JSON",
        }
    }
}

impl Kind {
    /// The path of a gRPC call.
    fn path(self) -> &'static str {
        match self {
            Kind::Typed => "/bench.Wide/Call",
            _ => "/inference.GRPCInferenceService/ModelInfer",
        }
    }
}

/// One round.
pub struct Shot {
    pub answered: usize,
    pub failed: usize,
    time: Duration,
    micros: Vec<u32>,
}

impl Shot {
    pub fn rate(&self) -> f64 {
        self.answered as f64 / self.time.as_secs_f64()
    }

    /// Microseconds.
    pub fn quantile(&self, quantile: f64) -> f64 {
        let index = (self.micros.len().saturating_sub(1)) as f64 * quantile;
        self.micros.get(index as usize).copied().unwrap_or(0).into()
    }
}

/// Calls `address` for `time` with so many callers. `request` is a framed gRPC message, or a whole HTTP/1.1 request.
pub fn shoot(address: &str, kind: Kind, request: &Bytes, callers: usize, time: Duration) -> Shot {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    runtime.block_on(async {
        let start = Instant::now();
        let end = start + time;
        let mut tasks = tokio::task::JoinSet::new();
        match kind {
            Kind::Grpc | Kind::Typed => {
                // 64 callers are 4 connections of 16 streams, as a service mesh would multiplex them.
                let connections = callers.min(4);
                for index in 0..connections {
                    let sender = grpc_connection(address).await;
                    for _ in 0..callers / connections + usize::from(index < callers % connections) {
                        tasks.spawn(grpc_caller(sender.clone(), kind.path(), request.clone(), end));
                    }
                }
            }
            Kind::Binary | Kind::Json => {
                for _ in 0..callers {
                    let stream = TcpStream::connect(address).await.expect("connected");
                    stream.set_nodelay(true).expect("set");
                    tasks.spawn(rest_caller(stream, request.clone(), end));
                }
            }
        }
        let mut shot = Shot { answered: 0, failed: 0, time, micros: Vec::new() };
        while let Some(counted) = tasks.join_next().await {
            let (micros, failed) = counted.expect("a caller ends");
            shot.answered += micros.len();
            shot.failed += failed;
            shot.micros.extend(micros);
        }
        shot.time = start.elapsed();
        shot.micros.sort_unstable();
        shot
    })
}

type Sender = hyper::client::conn::http2::SendRequest<Full<Bytes>>;

async fn grpc_connection(address: &str) -> Sender {
    let stream = TcpStream::connect(address).await.expect("connected");
    stream.set_nodelay(true).expect("set");
    let (sender, connection) =
        hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream))
            .await
            .expect("HTTP/2");
    tokio::spawn(connection);
    sender
}

async fn grpc_caller(mut sender: Sender, path: &str, message: Bytes, end: Instant) -> (Vec<u32>, usize) {
    let mut micros = Vec::new();
    let mut failed = 0;
    while Instant::now() < end {
        let start = Instant::now();
        let request = http::Request::post(format!("http://localhost{path}"))
            .header("content-type", "application/grpc")
            .header("te", "trailers")
            .body(Full::new(message.clone()))
            .expect("a request");
        let answer = async {
            let body = sender.send_request(request).await.ok()?.into_body().collect().await.ok()?;
            let status = body.trailers()?.get("grpc-status")?.clone();
            (status == "0" && body.to_bytes().len() > 5).then_some(())
        };
        match answer.await {
            Some(()) => micros.push(start.elapsed().as_micros() as u32),
            None => failed += 1,
        }
    }
    (micros, failed)
}

async fn rest_caller(mut stream: TcpStream, request: Bytes, end: Instant) -> (Vec<u32>, usize) {
    let mut micros = Vec::new();
    let mut buffer = vec![0; 64 << 10];
    while Instant::now() < end {
        let start = Instant::now();
        if stream.write_all(&request).await.is_err() {
            return (micros, 1);
        }
        let mut length = 0;
        loop {
            match stream.read(&mut buffer[length..]).await {
                Ok(0) | Err(_) => return (micros, 1),
                Ok(read) => length += read,
            }
            match whole_answer(&buffer[..length]) {
                Some(true) => break,
                Some(false) => return (micros, 1),
                None => {}
            }
        }
        micros.push(start.elapsed().as_micros() as u32);
    }
    (micros, 0)
}

/// `None` until the answer is whole; then whether it is a 200 with a body.
fn whole_answer(bytes: &[u8]) -> Option<bool> {
    let end = bytes.windows(4).position(|window| window == b"\r\n\r\n")? + 4;
    let head = std::str::from_utf8(&bytes[..end]).ok()?;
    let length = head.lines().find_map(|line| line.strip_prefix("content-length: "))?;
    let length: usize = length.trim().parse().ok()?;
    (bytes.len() >= end + length).then(|| head.starts_with("HTTP/1.1 200") && length > 0)
}
