//! HTTP servers of the pipeline, in the runner's accept loop: it bounds connections, headers and time, and ends.

use axum::Router;
use axum::body::Body;
use baton_runner::config::Limits;
use baton_runner::lifecycle::{self, Accept, Shutdown};
use tokio::net::TcpListener;
use tower::ServiceExt;

/// Accepts and answers until `shutdown` begins; connections go on in tasks of their own, see [`Shutdown::drained`].
pub(crate) async fn run(listener: TcpListener, routes: Router, shutdown: Shutdown) {
    let accept = Accept { limits: Limits::default(), shutdown, connections: None };
    let answer = move |request: http::Request<_>| {
        let answer = routes.clone().oneshot(request.map(Body::new));
        async move {
            let Ok(answer) = answer.await;
            answer
        }
    };
    lifecycle::serve(listener, accept, answer).await;
}
