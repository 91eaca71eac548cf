//! HTTP servers of the pipeline, in the runner's accept loop: it bounds connections, headers and time, and ends.

use axum::Router;
use axum::body::Body;
use baton_runner::config::Limits;
use baton_runner::lifecycle::{self, Accept, Shutdown};
use tokio::net::TcpListener;
use tower::ServiceExt;
use tower_http::timeout::TimeoutBody;

/// Bytes of headers: all attributes of an event, each byte of which may be written as three.
const HEADERS: usize = 512 << 10;

/// Accepts and answers until `shutdown` begins; connections go on in tasks of their own, see [`Shutdown::drained`]. Half of the files
/// that the process may open are left to everything else.
pub(crate) async fn run(listener: TcpListener, routes: Router, shutdown: Shutdown) {
    let limits = Limits::default();
    let descriptors = lifecycle::raise_descriptors();
    let connections = limits.connections.min(descriptors / 2);
    let idle = limits.body_idle;
    let limits = Limits { header_bytes: HEADERS, connections, ..limits };
    let answer = move |request: http::Request<_>| {
        let request = request.map(|body| Body::new(TimeoutBody::new(idle, body)));
        let answer = routes.clone().oneshot(request);
        async move {
            let Ok(answer) = answer.await;
            answer
        }
    };
    lifecycle::serve(listener, Accept { limits, shutdown, connections: None }, answer).await;
}
