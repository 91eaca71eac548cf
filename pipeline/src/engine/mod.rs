//! The engine that runs a pipeline on one machine: a durable router with a table of processes.
//!
//! An event is in the database, with a delivery for each trigger that takes it, before its sender hears 202 (`ledger`,
//! `deliveries`, `router`). A task for each target delivers (`dispatch`, `call`) to instances that are started when there is work
//! and end when there is none (`pool`, `instance`), or makes jobs (`job`). All processes run below a supervisor that leaves nothing behind
//! (`process`, `supervise`, `proc`). Events also come from files (`inbox`) and timers (`ping`), and again when code has changed
//! (`rerun`). `api` is what others see. It never becomes a distributed engine: past one machine the same manifests go to
//! Knative.
//!
//! Everything async runs on one thread. What blocks has threads of its own: two for the database, one for the inbox.

mod api;
mod call;
mod deliveries;
mod dispatch;
mod guard;
mod inbox;
mod instance;
mod job;
mod ledger;
mod ping;
mod pool;
mod proc;
mod process;
mod rerun;
mod router;
mod supervise;

use std::collections::BTreeSet;
use std::io::Write as _;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use baton_runner::lifecycle::{Shutdown, wait_for_signal};
use tokio::sync::{Notify, watch};
use tokio::time::Instant;

use crate::event::Event;
use crate::manifest::{JobSink, Pipeline};
use crate::server;
use crate::store::{Store, StoreError};
use deliveries::Accepted;
use ledger::Folder;
pub use ledger::{DATABASE, Ledger, LedgerError};
use pool::Pool;
use process::Starter;
use router::{Router, Target};
pub use supervise::{SuperviseArgs, main as supervise};

/// From SIGTERM to the end: calls in flight may end in the first part of it.
const END: Duration = Duration::from_secs(8);

/// What a user can choose.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Database, logs and folders of jobs.
    pub data: PathBuf,
    pub listen: SocketAddr,
    /// Address of the artifact store.
    pub store: String,
    /// Admin address of the runner.
    pub server: String,
    /// Files that appear in a folder below become versions of a dataset with the folder's name.
    pub inbox: Option<PathBuf>,
    /// Variables of the engine's own environment for all processes, besides the usual.
    pub pass_env: Vec<String>,
    /// Jobs at a time.
    pub jobs: usize,
    /// Asked of every request but those for health; without one, only the loopback is served.
    pub token: Option<String>,
}

/// Why the engine did not start, or stopped.
#[derive(Debug, thiserror::Error)]
pub enum EngineError {
    #[error(transparent)]
    Ledger(#[from] LedgerError),
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error("{by} names {what}, which is not in the manifests")]
    Unknown { by: String, what: String },
    #[error(
        "{0} can be reached from other machines; give a token with --token-file, or listen on the loopback"
    )]
    Exposed(SocketAddr),
    #[error("cannot listen on {address}: {source}")]
    Listen { address: SocketAddr, source: std::io::Error },
    #[error("cannot watch the inbox {}: {reason}", path.display())]
    Inbox { path: PathBuf, reason: String },
    #[error("ping {name}: {reason}")]
    Ping { name: String, reason: String },
    #[error("cannot {0}: {1}")]
    Process(&'static str, std::io::Error),
    #[error("no client for functions: {0}")]
    Client(#[from] reqwest::Error),
}

/// A running engine, as its tasks and its addresses see it.
#[derive(Debug)]
pub struct Engine {
    settings: Settings,
    /// Events, deliveries and jobs.
    pub ledger: Ledger,
    /// The artifacts.
    pub store: Store,
    router: Arc<Router>,
    starter: Arc<Starter>,
    client: reqwest::Client,
    /// By lane.
    pools: Vec<Option<Arc<Pool>>>,
    /// By lane: there is work.
    wakes: Vec<Notify>,
    jobs: job::Wake,
    /// Number of the newest event.
    newest: watch::Sender<i64>,
    shutdown: Shutdown,
    guard: guard::Guard,
}

/// Runs a pipeline until SIGTERM or SIGINT.
///
/// # Errors
/// See [`EngineError`].
pub fn run(pipeline: &Pipeline, settings: Settings) -> Result<(), EngineError> {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| EngineError::Process("start a runtime", error))?
        .block_on(serve(pipeline, settings))
}

async fn serve(pipeline: &Pipeline, settings: Settings) -> Result<(), EngineError> {
    if !settings.listen.ip().is_loopback() && settings.token.is_none() {
        return Err(EngineError::Exposed(settings.listen));
    }
    let router = Arc::new(Router::new(pipeline)?);
    let mut folder = Folder::lock(&settings.data)?;
    let ledger = Ledger::open(&mut folder)?;
    let orphans = process::kill_orphans(&folder.id).await;
    if orphans > 0 {
        tracing::warn!(orphans, "killed what an earlier engine has left");
    }
    let store = Store::open(&settings.store)?;
    store.probe().await?;
    let failed = |source| EngineError::Listen { address: settings.listen, source };
    let listener = tokio::net::TcpListener::bind(settings.listen).await.map_err(failed)?;
    let address = listener.local_addr().map_err(failed)?;
    let engine = Engine::new(pipeline, settings, router, ledger, store, &folder, address)?;
    engine.recover().await?;
    let mut tasks: Vec<tokio::task::JoinHandle<()>> = Vec::new();
    tasks
        .extend((0..engine.router.lanes.len()).map(|lane| tokio::spawn(dispatch::run(engine.clone(), lane))));
    tasks.push(tokio::spawn(job::run_all(engine.clone())));
    tasks.push(tokio::spawn(job::clean(engine.clone())));
    for ping in ping::checked(pipeline)? {
        tasks.push(tokio::spawn(ping::run(engine.clone(), ping)));
    }
    if let Some(path) = engine.settings.inbox.clone() {
        tasks.push(tokio::spawn(inbox::run(engine.clone(), inbox::watch(&path)?)));
    }
    for pool in engine.pools.iter().flatten() {
        tokio::spawn(pool.clone().keep_minimum());
    }
    announce(address);
    tokio::spawn(server::run(listener, api::all(engine.clone()), engine.shutdown.clone()));
    wait_for_signal().await;
    tracing::info!("ending");
    let until = Instant::now() + END;
    engine.shutdown.begin();
    let rest = async {
        // Well-behaved functions finish their call when they are asked to end; what they answer is still recorded.
        futures_util::future::join_all(engine.pools.iter().flatten().map(|pool| pool.close(until))).await;
        for task in tasks {
            let _ = task.await;
        }
        engine.shutdown.drained(END).await;
    };
    let _ = tokio::time::timeout_at(until + Duration::from_secs(1), rest).await;
    Ok(())
}

/// Who started the engine with port 0 reads the port here; nobody has to.
fn announce(address: SocketAddr) {
    let _ = writeln!(std::io::stdout(), "pipeline listening on {address}");
}

impl Engine {
    fn new(
        pipeline: &Pipeline,
        settings: Settings,
        router: Arc<Router>,
        ledger: Ledger,
        store: Store,
        folder: &Folder,
        address: SocketAddr,
    ) -> Result<Arc<Self>, EngineError> {
        let guard = guard::Guard::new(address, settings.token.clone());
        let starter = Arc::new(Starter {
            binary: std::env::current_exe()
                .map_err(|error| EngineError::Process("find this binary", error))?,
            engine: folder.id.clone(),
            data: folder.path.clone(),
            store: store.address().to_owned(),
            server: settings.server.clone(),
            sink: guard.sink(),
            pass_env: settings.pass_env.clone(),
        });
        let client = call::client()?;
        let pools = router.lanes.iter().map(|lane| match &lane.target {
            Target::Service(service) => Some(Pool::new(service.clone(), starter.clone(), client.clone())),
            _ => None,
        });
        let broker = if pipeline.broker.is_empty() { "default" } else { &pipeline.broker };
        tracing::info!(
            broker,
            triggers = pipeline.triggers.len(),
            services = pipeline.services.len(),
            jobs = pipeline.jobs.len(),
            data = %folder.path.display(),
            store = store.address(),
            "pipeline"
        );
        Ok(Arc::new(Self {
            pools: pools.collect(),
            wakes: router.lanes.iter().map(|_| Notify::new()).collect(),
            jobs: job::Wake::default(),
            newest: watch::Sender::new(0),
            shutdown: Shutdown::default(),
            settings,
            ledger,
            store,
            router,
            starter,
            client,
            guard,
        }))
    }

    /// What earlier engines have left undone, and what other code makes necessary.
    async fn recover(&self) -> Result<(), EngineError> {
        let router = self.router.clone();
        let (dead, jobs, again, newest) = self
            .ledger
            .write(move |transaction| {
                let dead = deliveries::adopt(transaction, &router)?;
                let jobs = job::recover(transaction)?;
                let again = rerun::rerun(transaction, &router)?;
                let newest: Option<i64> =
                    transaction.query_row("SELECT max(seq) FROM event", [], |row| row.get(0))?;
                Ok((dead, jobs, again, newest.unwrap_or(0)))
            })
            .await?;
        if dead > 0 {
            tracing::warn!(dead, "deliveries are given up: their triggers are no longer in the manifests");
        }
        if jobs > 0 {
            tracing::info!(jobs, "started again: they were running when the engine ended");
        }
        for rerun in again {
            tracing::info!(
                trigger = rerun.trigger,
                subject = rerun.subject.as_deref().unwrap_or(""),
                old = rerun.old,
                new = rerun.new,
                "delivered again: its code has changed"
            );
        }
        self.newest.send_replace(newest);
        Ok(())
    }

    /// Stores an event and its deliveries; comes back when they are on disk.
    ///
    /// # Errors
    /// The database's.
    pub(crate) async fn accept(self: &Arc<Self>, event: Event) -> Result<Accepted, LedgerError> {
        let router = self.router.clone();
        self.write_and_wake(move |transaction| deliveries::accept(transaction, &router, &event)).await
    }

    /// Runs a command and wakes the lanes that have work by it. On a task of its own: the one who asked for it may go away while it
    /// is written, and what is on disk would then wait for another reason to look.
    async fn write_and_wake(
        self: &Arc<Self>,
        command: impl FnOnce(&rusqlite::Transaction) -> rusqlite::Result<Accepted> + Send + 'static,
    ) -> Result<Accepted, LedgerError> {
        let engine = self.clone();
        let written = tokio::spawn(async move {
            let accepted = engine.ledger.write(command).await?;
            engine.wake(&accepted);
            Ok(accepted)
        });
        written.await.unwrap_or(Err(LedgerError::Gone))
    }

    /// Tells those who wait for what was just stored.
    fn wake(&self, accepted: &Accepted) {
        self.wake_lanes(&accepted.lanes);
        if accepted.is_new {
            self.newest.send_if_modified(|newest| {
                let is_newer = accepted.seq > *newest;
                *newest = (*newest).max(accepted.seq);
                is_newer
            });
        }
    }

    fn wake_lanes(&self, lanes: &BTreeSet<usize>) {
        lanes.iter().for_each(|lane| self.wakes[*lane].notify_one());
    }

    fn job_sinks(&self) -> impl Iterator<Item = &JobSink> {
        self.router.lanes.iter().filter_map(|lane| match &lane.target {
            Target::Job(sink) => Some(sink),
            _ => None,
        })
    }
}
