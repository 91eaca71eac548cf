//! The empty servers: an ordinary tonic and an ordinary axum one that answer every request with recorded bytes.
//!
//! They get the shape that Baton has - one current-thread runtime and listener a core, no delay, the same windows - so
//! that the ratio shows what Baton does with a request and not how it listens.

use std::convert::Infallible;
use std::path::Path;

use axum::Router;
use axum::body::{Body, Bytes};
use axum::routing::post;
use baton_proto::inference::{ModelInferRequest, ModelInferResponse};
use http::{HeaderMap, Request, Response};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto;
use prost::Message;
use socket2::{Domain, Socket, Type};
use tokio::net::TcpListener;
use tonic::metadata::MetadataMap;
use tonic::server::{Grpc, UnaryService};
use tower::ServiceExt;

/// Serves the recordings in `folder` until the process is ended; prints the addresses.
pub fn run(folder: &str) {
    let read = |name: &str| std::fs::read(Path::new(folder).join(name)).expect("a recording");
    let message = ModelInferResponse::decode(read("grpc").as_slice()).expect("an answer");
    let grpc = Echo { message, metadata: MetadataMap::from_headers(header_map(&read("grpc.headers"))) };
    let threads = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let mut listeners = Vec::new();
    for name in ["grpc", "binary", "json"] {
        let first = bind("127.0.0.1:0".parse().expect("an address"));
        let address = first.local_addr().expect("an address");
        println!("{name} {address}");
        let router = rest(read(name), &read(&format!("{name}.headers")));
        listeners.push((first, name, router.clone()));
        for _ in 1..threads {
            listeners.push((bind(address), name, router.clone()));
        }
    }
    // One thread a core, each with a listener of every kind.
    let mut by_thread: Vec<Vec<_>> = (0..threads).map(|_| Vec::new()).collect();
    for (index, listener) in listeners.into_iter().enumerate() {
        by_thread[index % threads].push(listener);
    }
    let handles: Vec<_> = by_thread
        .into_iter()
        .map(|listeners| {
            let grpc = grpc.clone();
            std::thread::spawn(move || {
                let runtime =
                    tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
                runtime.block_on(async move {
                    for (listener, name, router) in listeners {
                        let listener = TcpListener::from_std(listener).expect("a listener");
                        let grpc = (name == "grpc").then(|| grpc.clone());
                        tokio::spawn(accept(listener, grpc, router));
                    }
                    std::future::pending::<()>().await;
                });
            })
        })
        .collect();
    for handle in handles {
        let _ = handle.join();
    }
}

fn bind(address: std::net::SocketAddr) -> std::net::TcpListener {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, None).expect("a socket");
    socket.set_reuse_port(true).expect("set");
    socket.set_nonblocking(true).expect("set");
    socket.bind(&address.into()).expect("bound");
    socket.listen(1024).expect("listening");
    socket.into()
}

/// An axum server that reads the body and answers with the recording and its headers.
fn rest(answer: Vec<u8>, headers: &[u8]) -> Router {
    let answer = Bytes::from(answer);
    let map = header_map(headers);
    Router::new().fallback(post(move |body: Bytes| {
        std::hint::black_box(body);
        let (headers, answer) = (map.clone(), answer.clone());
        async move { (headers, answer) }
    }))
}

fn header_map(lines: &[u8]) -> HeaderMap {
    let mut map = HeaderMap::new();
    for line in String::from_utf8_lossy(lines).lines() {
        let (name, value) = line.split_once(": ").expect("a header");
        let name: http::HeaderName = name.parse().expect("a name");
        map.insert(name, value.parse().expect("a value"));
    }
    map
}

#[derive(Clone)]
struct Echo {
    message: ModelInferResponse,
    metadata: MetadataMap,
}

impl UnaryService<ModelInferRequest> for Echo {
    type Response = ModelInferResponse;
    type Future = std::future::Ready<Result<tonic::Response<ModelInferResponse>, tonic::Status>>;

    fn call(&mut self, request: tonic::Request<ModelInferRequest>) -> Self::Future {
        std::hint::black_box(request.into_inner());
        let (message, metadata) = (self.message.clone(), self.metadata.clone());
        std::future::ready(Ok(tonic::Response::from_parts(metadata, message, tonic::Extensions::default())))
    }
}

async fn accept(listener: TcpListener, grpc: Option<Echo>, router: Router) {
    loop {
        let Ok((stream, _)) = listener.accept().await else { continue };
        let _ = stream.set_nodelay(true);
        let (grpc, router) = (grpc.clone(), router.clone());
        tokio::spawn(async move {
            let mut builder = auto::Builder::new(TokioExecutor::new());
            builder
                .http2()
                .initial_stream_window_size(1 << 20)
                .initial_connection_window_size(4 << 20)
                .max_concurrent_streams(1_000);
            let service = service_fn(move |request: Request<Incoming>| {
                let (grpc, router) = (grpc.clone(), router.clone());
                async move { Ok::<_, Infallible>(answer(grpc, router, request).await) }
            });
            let _ = builder.serve_connection(TokioIo::new(stream), service).await;
        });
    }
}

async fn answer(grpc: Option<Echo>, router: Router, request: Request<Incoming>) -> Response<Body> {
    match grpc {
        Some(answer) => {
            let codec = tonic_prost::ProstCodec::<ModelInferResponse, ModelInferRequest>::default();
            Grpc::new(codec).unary(answer, request).await.map(Body::new)
        }
        None => {
            let Ok(response) = router.oneshot(request.map(Body::new)).await;
            response
        }
    }
}
