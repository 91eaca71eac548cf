//! Our own accept loop: HTTP/1.1 and HTTP/2 on one socket, with limits on connections, headers and time.
//!
//! `axum::serve` is not used: it never cuts a half-sent header, sets no HTTP/2 windows, and its graceful shutdown waits
//! for such connections for ever.

use std::convert::Infallible;
use std::future::Future;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use http::{Request, Response};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use prometheus::IntGauge;
use rustix::process::{Resource, getrlimit, setrlimit};
use socket2::{Domain, Protocol, Socket, Type};
use tokio::net::{TcpListener, TcpStream};

use super::guard::{Guarded, Requests};
use super::shutdown::{Open, Shutdown};
use crate::config::Limits;
use crate::error::{Code, Error, Result};

/// Pending connections of a listener.
const BACKLOG: i32 = 1024;
/// Open files that are asked for.
const DESCRIPTORS: u64 = 65_536;
/// After an accept that failed for want of descriptors or memory.
const PAUSE: Duration = Duration::from_millis(50);
/// HTTP/2 windows: one image-sized tensor fits a stream's. Fixed, since adaptive windows cost small messages 10 %.
const STREAM_WINDOW: u32 = 1 << 20;
const CONNECTION_WINDOW: u32 = 4 << 20;

/// What one listener accepts with.
#[derive(Clone)]
pub struct Accept {
    pub limits: Limits,
    pub shutdown: Shutdown,
    /// How many connections are open, for whom it may concern.
    pub connections: Option<IntGauge>,
}

/// Binds an address that nobody else may bind.
///
/// # Errors
/// `BAD_CONFIG` with the address.
pub fn bind(address: SocketAddr) -> Result<std::net::TcpListener> {
    listen(address, false)
}

/// Binds an address for several listeners, between which the kernel spreads connections.
///
/// # Errors
/// `BAD_CONFIG` with the address.
pub fn bind_shared(address: SocketAddr) -> Result<std::net::TcpListener> {
    listen(address, true)
}

fn listen(address: SocketAddr, shared: bool) -> Result<std::net::TcpListener> {
    let listen = || -> std::io::Result<std::net::TcpListener> {
        let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
        socket.set_reuse_address(true)?;
        if shared {
            socket.set_reuse_port(true)?;
        }
        socket.set_nonblocking(true)?;
        socket.bind(&address.into())?;
        socket.listen(BACKLOG)?;
        Ok(socket.into())
    };
    listen().map_err(|error| {
        Error::new(
            Code::BadConfig,
            format!("cannot listen on {address}: {error}; is it in use by another process?"),
        )
    })
}

/// Lets the process open as many files as it may, at most 65,536 (some programs that it starts go through all numbers). Gives how
/// many.
pub fn raise_descriptors() -> usize {
    let mut limits = getrlimit(Resource::Nofile);
    let most = limits.maximum.unwrap_or(u64::MAX).min(DESCRIPTORS);
    if limits.current.is_some_and(|current| current < most) {
        limits.current = Some(most);
        if let Err(error) = setrlimit(Resource::Nofile, limits) {
            tracing::warn!("the limit of open files stays as it is: {error}");
        }
    }
    usize::try_from(getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX)).unwrap_or(usize::MAX)
}

/// Accepts and serves until shutdown begins; connections go on in tasks of their own.
pub async fn serve<Serve, Answer>(listener: TcpListener, accept: Accept, serve: Serve)
where
    Serve: Fn(Request<Incoming>) -> Answer + Clone + Send + 'static,
    Answer: Future<Output = Response<Body>> + Send + 'static,
{
    let begun = accept.shutdown.begun();
    tokio::pin!(begun);
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = &mut begun => return,
        };
        match accepted {
            Ok((stream, _)) => {
                let Some(open) = accept.shutdown.enter(accept.limits.connections) else {
                    tracing::warn!("a connection over the limit of {} was closed", accept.limits.connections);
                    continue;
                };
                let _ = stream.set_nodelay(true);
                tokio::spawn(connection(stream, accept.clone(), open, serve.clone()));
            }
            // Out of descriptors, aborted connections: a listener must outlive them all.
            Err(error) => {
                tracing::warn!("cannot accept a connection: {error}");
                tokio::time::sleep(PAUSE).await;
            }
        }
    }
}

async fn connection<Serve, Answer>(stream: TcpStream, accept: Accept, _open: Open, serve: Serve)
where
    Serve: Fn(Request<Incoming>) -> Answer + Clone + Send + 'static,
    Answer: Future<Output = Response<Body>> + Send + 'static,
{
    let limits = &accept.limits;
    let _gauge = accept.connections.as_ref().map(Gauge::enter);
    // A connection that says nothing costs a descriptor, for as long as an idle one may.
    let mut greeting = [0; 3];
    let greeted = tokio::select! {
        peeked = tokio::time::timeout(limits.idle_time, stream.peek(&mut greeting)) => peeked.is_ok(),
        () = accept.shutdown.begun() => false,
    };
    if !greeted {
        return;
    }
    let is_http2 = &greeting == b"PRI";
    let mut builder = auto::Builder::new(TokioExecutor::new());
    builder
        .http1()
        .timer(TokioTimer::new())
        .header_read_timeout(limits.idle_time)
        .max_buf_size(limits.header_bytes.max(64 << 10))
        .http2()
        .timer(TokioTimer::new())
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .max_concurrent_streams(limits.streams)
        .max_header_list_size(u32::try_from(limits.header_bytes).unwrap_or(u32::MAX))
        .keep_alive_interval(Duration::from_secs(60))
        .keep_alive_timeout(Duration::from_secs(20));
    let requests = Arc::new(Requests::default());
    let stream = Guarded::new(stream, Arc::clone(&requests), limits.header_time, is_http2);
    let service = service_fn(move |request| {
        let under_way = requests.begin();
        let answer = serve(request);
        async move {
            let answer = answer.await;
            drop(under_way);
            Ok::<_, Infallible>(answer)
        }
    });
    let connection = builder.serve_connection(TokioIo::new(stream), service);
    tokio::pin!(connection);
    let result = tokio::select! {
        result = connection.as_mut() => result,
        () = accept.shutdown.begun() => {
            // HTTP/2 sends GOAWAY, HTTP/1.1 closes after the answer; both answer what they have accepted.
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = result {
        tracing::debug!("a connection ended: {error}");
    }
}

struct Gauge<'a>(&'a IntGauge);

impl<'a> Gauge<'a> {
    fn enter(gauge: &'a IntGauge) -> Self {
        gauge.inc();
        Self(gauge)
    }
}

impl Drop for Gauge<'_> {
    fn drop(&mut self) {
        self.0.dec();
    }
}
