//! The order of the end: first not ready, then no new connections, then what was accepted is answered, then exit.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;

/// Tells every listener and connection to finish, and counts the connections that have not.
#[derive(Debug, Clone)]
pub struct Shutdown {
    sender: Arc<watch::Sender<bool>>,
    open: Arc<AtomicUsize>,
}

/// How the drain ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ended {
    /// Everything was answered.
    Drained,
    /// The deadline passed, or a second signal came, with this many connections still open.
    Cut(usize),
}

impl Default for Shutdown {
    fn default() -> Self {
        Self { sender: Arc::new(watch::Sender::new(false)), open: Arc::default() }
    }
}

impl Shutdown {
    /// Has the end begun?
    pub fn has_begun(&self) -> bool {
        *self.sender.borrow()
    }

    /// Begins the end.
    pub fn begin(&self) {
        self.sender.send_replace(true);
    }

    /// Resolves when the end begins.
    pub async fn begun(&self) {
        let mut receiver = self.sender.subscribe();
        // The sender lives in `self`, so waiting can only end by the value.
        let _ = receiver.wait_for(|begun| *begun).await;
    }

    /// Counts a connection until the guard is dropped; `None` over the limit.
    pub(super) fn enter(&self, limit: usize) -> Option<Open> {
        let open = Open(Arc::clone(&self.open));
        (self.open.fetch_add(1, Ordering::AcqRel) < limit).then_some(open)
    }

    /// Waits until every connection is closed, at most `limit`.
    pub async fn drained(&self, limit: Duration) -> Ended {
        let deadline = Instant::now() + limit;
        let second_signal = wait_for_signal();
        tokio::pin!(second_signal);
        loop {
            let open = self.open.load(Ordering::Acquire);
            if open == 0 {
                return Ended::Drained;
            }
            if Instant::now() >= deadline {
                return Ended::Cut(open);
            }
            tokio::select! {
                () = tokio::time::sleep(Duration::from_millis(10)) => {}
                _ = &mut second_signal => return Ended::Cut(self.open.load(Ordering::Acquire)),
            }
        }
    }
}

/// A counted connection.
#[derive(Debug)]
pub(super) struct Open(Arc<AtomicUsize>);

impl Drop for Open {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::AcqRel);
    }
}

/// Resolves at SIGTERM or SIGINT, with its name.
pub async fn wait_for_signal() -> &'static str {
    let listen =
        |kind| signal(kind).map_err(|error| tracing::error!("cannot listen for signals: {error}")).ok();
    let (Some(mut terminate), Some(mut interrupt)) =
        (listen(SignalKind::terminate()), listen(SignalKind::interrupt()))
    else {
        return std::future::pending().await;
    };
    tokio::select! {
        _ = terminate.recv() => "SIGTERM",
        _ = interrupt.recv() => "SIGINT",
    }
}
