//! Wiring of the server, top to bottom: settings, store, engine, models, listeners, the end.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::response::IntoResponse;
use http::{Request, Response};
use hyper::body::Incoming;
use tokio::net::TcpListener;
use tower::ServiceExt;

use crate::auth::{Gate, Role, TokenFile};
use crate::config::{Config, Listen};
use crate::engine::{Engines, step_back};
use crate::error::{Code, Error, Result};
use crate::inference::oip::{self, RepositoryControl};
use crate::inference::{Grpc, Inference, typed};
use crate::lifecycle::{
    Accept, Ended, Shutdown, bind, bind_shared, raise_descriptors, reclaimable, serve, wait_for_signal,
};
use crate::model::Models;
use crate::requestlog::RequestLog;
use crate::store::Store;
use crate::telemetry::Metrics;
use crate::{admin, failpoint};

/// Threads of the admin port: one receives an upload while the other answers.
const ADMIN_THREADS: usize = 2;

/// Runs the server until it is told to stop.
///
/// # Errors
/// Why it could not start.
pub fn run(config: Config) -> Result<Ended> {
    failpoint::configure().map_err(|text| Error::new(Code::BadConfig, text))?;
    raise_descriptors();
    let metrics = Metrics::new()?;
    let store = Store::open(&config.store)?;
    let engines =
        Engines::for_server(config.onnxruntime.as_deref(), config.native_in_process, &config.limits);
    let request_log = config.request_log.as_ref();
    let request_log =
        request_log.map(|log| RequestLog::start(log, &config.limits, metrics.request_log())).transpose()?;
    let (request_log, request_log_end) = request_log.unzip();
    let models = Models::start(store, engines, Arc::clone(&metrics), request_log, config.limits.clone());
    let inference = Inference::start(Arc::clone(&models), config.compute_threads);
    let tokens = Tokens::open(&config)?;
    let shutdown = Shutdown::default();
    let accept = |port| Accept {
        limits: config.limits.clone(),
        shutdown: shutdown.clone(),
        connections: Some(metrics.connections(port)),
    };

    let admin_runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(ADMIN_THREADS)
        .thread_name("baton-admin")
        // Receiving and hashing an upload must not hold up requests.
        .on_thread_start(|| step_back(5))
        // `block_in_place` borrows threads from this pool; idle ones need not stay.
        .max_blocking_threads(8)
        .thread_keep_alive(Duration::from_secs(1))
        .enable_all()
        .build()
        .map_err(|error| Error::new(Code::Internal, "cannot start the admin threads").caused_by(error))?;

    let ready = readiness(&shutdown);
    // Made once a thread: counts of shared references would travel between the cores with each request.
    let data_port = || Port {
        gate: Gate::new(Role::Data, tokens.admin.clone(), tokens.data.clone(), Vec::new()),
        grpc: Grpc::new(inference.clone(), RepositoryControl::ReadOnly, Arc::clone(&ready)),
        rest: with_fallbacks(
            oip::router(inference.clone(), RepositoryControl::ReadOnly, Arc::clone(&ready)),
            inference.clone(),
        ),
        reclaim_from: 32 << 10,
    };
    let data_address = start_data(&config, data_port, &accept("data"))?;
    let admin_port = Arc::new(Port {
        gate: Gate::new(Role::Admin, tokens.admin.clone(), tokens.data.clone(), config.admin_hosts.clone()),
        grpc: Grpc::new(inference.clone(), RepositoryControl::Allowed, Arc::clone(&ready)),
        rest: with_fallbacks(
            oip::router(inference.clone(), RepositoryControl::Allowed, ready)
                .merge(admin::router(Arc::clone(&models))),
            inference,
        ),
        reclaim_from: 0,
    });
    let admin_listener = bind(config.admin.address)?;
    let admin_address = admin_listener.local_addr().map_err(cannot_listen)?;
    announce("data", data_address);
    announce("admin", admin_address);

    admin_runtime.block_on(async {
        for file in tokens.admin.into_iter().chain(tokens.data) {
            tokio::spawn(file.follow());
        }
        let listener = TcpListener::from_std(admin_listener).map_err(cannot_listen)?;
        tokio::spawn(serve(listener, accept("admin"), move |request| {
            Arc::clone(&admin_port).answer(request)
        }));
        let signal = wait_for_signal().await;
        tracing::info!("{signal}: answering what was accepted, then stopping");
        models.close();
        shutdown.begin();
        let ended = shutdown.drained(config.limits.drain).await;
        if let Ended::Cut(open) = ended {
            tracing::error!("stopped with {open} connections still open");
        }
        if let Some(end) = request_log_end {
            end.close();
        }
        Ok(ended)
    })
}

struct Tokens {
    admin: Option<Arc<TokenFile>>,
    data: Option<Arc<TokenFile>>,
}

impl Tokens {
    fn open(config: &Config) -> Result<Self> {
        let open = |listen: &Listen| listen.token_file.as_deref().map(TokenFile::open).transpose();
        Ok(Self { admin: open(&config.admin)?, data: open(&config.data)? })
    }
}

/// Ready: what was active is loaded, and the end has not begun. A model being prepared does not count.
fn readiness(shutdown: &Shutdown) -> oip::Ready {
    let shutdown = shutdown.clone();
    Arc::new(move |inference| inference.models().is_recovered() && !shutdown.has_begun())
}

/// One thread with its own runtime and listener a core: a connection stays on its thread, and a fast model runs there
/// too. The multi-thread runtime costs 1.8 times the CPU for multiplexed gRPC.
fn start_data(config: &Config, port: impl Fn() -> Port, accept: &Accept) -> Result<SocketAddr> {
    // Shared binding would also share with another server of the same user; an exclusive one finds it.
    drop(bind(config.data.address)?);
    let first = bind_shared(config.data.address)?;
    let address = first.local_addr().map_err(cannot_listen)?;
    let mut listeners = vec![first];
    for _ in 1..config.io_threads {
        // The first one's address, so that port 0 means one port for all.
        listeners.push(bind_shared(address)?);
    }
    for (index, listener) in listeners.into_iter().enumerate() {
        let (port, accept) = (Arc::new(port()), accept.clone());
        let run = move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            let served = runtime.map(|runtime| {
                runtime.block_on(async {
                    let listener = TcpListener::from_std(listener)?;
                    let shutdown = accept.shutdown.clone();
                    serve(listener, accept, move |request| Arc::clone(&port).answer(request)).await;
                    // Connections are tasks of this runtime: it has to live until the process ends.
                    shutdown.begun().await;
                    std::future::pending::<std::io::Result<()>>().await
                })
            });
            if let Ok(Err(error)) | Err(error) = served {
                tracing::error!("a data thread ended: {error}");
            }
        };
        std::thread::Builder::new()
            .name(format!("baton-io-{index}"))
            .spawn(run)
            .map_err(|error| Error::new(Code::Internal, "cannot start a data thread").caused_by(error))?;
    }
    Ok(address)
}

/// What one port answers with.
struct Port {
    gate: Gate,
    grpc: Grpc,
    rest: Router,
    /// Bodies from this size on are read away when a request is refused.
    reclaim_from: u64,
}

impl Port {
    async fn answer(self: Arc<Self>, request: Request<Incoming>) -> Response<Body> {
        let media_type =
            request.headers().get(http::header::CONTENT_TYPE).map_or(&b""[..], |value| value.as_bytes());
        let is_web = media_type.starts_with(b"application/grpc-web");
        let is_grpc = media_type.starts_with(b"application/grpc");
        let allowed = self.gate.check(request.method(), request.uri(), request.headers());
        if is_grpc {
            return match allowed {
                Ok(()) if is_web => self.grpc.answer_web(request).await,
                Ok(()) => self.grpc.answer(request).await,
                Err(error) => tonic::Status::from(error).into_http(),
            };
        }
        let (head, body) = request.into_parts();
        let (body, leftover) = reclaimable(body, self.reclaim_from);
        let response = match allowed {
            Ok(()) => {
                let Ok(response) = self.rest.clone().oneshot(Request::from_parts(head, body)).await;
                response
            }
            Err(error) => {
                drop(body);
                error.into_response()
            }
        };
        leftover.discard().await;
        response
    }
}

/// What no route takes is a typed method, or nothing.
fn with_fallbacks(router: Router, inference: Inference) -> Router {
    router.fallback(move |request| typed::fallback(inference.clone(), request)).method_not_allowed_fallback(
        async || Error::new(Code::MethodNotAllowed, "the path exists, but not with this method"),
    )
}

/// On standard output, for whoever started the process on port 0.
#[allow(clippy::print_stdout, reason = "the one thing that the server tells its parent")]
fn announce(port: &str, address: SocketAddr) {
    println!("{port} listening on {address}");
    tracing::info!("{port} listening on {address}");
}

fn cannot_listen(error: std::io::Error) -> Error {
    Error::new(Code::BadConfig, "cannot listen").caused_by(error)
}
