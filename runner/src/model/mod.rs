//! The life of models: what is stored, prepared, served, retired. Joins store, engine and snapshot.
//!
//! ```text
//! push      a bundle from upload to activation, step by step
//! activate  activation, roll-back, unloading and removal of what is stored
//! prepare   load, golden rows, warm-up (loader thread)
//! swap      the one place that changes what is served
//! reap      destruction (reaper thread)
//! trial     a run of what was uploaded for one call
//! recover   start-up
//! catalog   what is known of each model, for people and for decisions
//! ```
//! No HTTP or gRPC type is seen here. Traffic splits, probation and the probe of a push in a child process will be
//! rooms beside these.

mod activate;
mod catalog;
mod degrade;
mod loader;
mod prepare;
mod push;
mod reap;
mod recover;
mod snapshot;
mod swap;
mod trial;
mod version;

use std::collections::HashSet;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};

use crossbeam_channel::Sender;

pub use activate::Outcome;
pub use catalog::{Entry, PublicState};
pub use push::{OnActivate, OnBreaking, Push, check_announced};
pub use snapshot::{Route, Served, Slot, Snapshot, Switchboard};
pub use trial::{ConvertBy, Trial, TrialModel};
pub use version::{Identity, Version};

use crate::config::Limits;
use crate::engine::Engines;
use crate::error::{Code, Error, Result};
use crate::requestlog::RequestLog;
use crate::store::{ModelName, Store};
use crate::telemetry::Metrics;

/// All models of the process.
pub struct Models {
    /// For what calls back from threads that must not keep it alive.
    this: Weak<Models>,
    store: Store,
    engines: Engines,
    board: Switchboard,
    catalog: Mutex<catalog::Catalog>,
    /// Held while the pointer moves and the snapshot follows, so that both change in one order. No request takes it.
    order: Mutex<()>,
    busy: Mutex<HashSet<ModelName>>,
    uploads: AtomicUsize,
    recovered: AtomicBool,
    closing: AtomicBool,
    reaper: reap::Reaper,
    loader: Sender<loader::Job>,
    metrics: Arc<Metrics>,
    request_log: Option<RequestLog>,
    limits: Limits,
}

impl std::fmt::Debug for Models {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Models").finish_non_exhaustive()
    }
}

impl Models {
    /// Starts the loader and the reaper, and recovery on the loader. What is served follows as it loads.
    pub fn start(
        store: Store,
        engines: Engines,
        metrics: Arc<Metrics>,
        request_log: Option<RequestLog>,
        limits: Limits,
    ) -> Arc<Self> {
        let (loader, jobs) = crossbeam_channel::unbounded();
        let models = Arc::new_cyclic(|this| Self {
            this: Weak::clone(this),
            store,
            engines,
            board: Switchboard::default(),
            catalog: Mutex::default(),
            order: Mutex::default(),
            busy: Mutex::default(),
            uploads: AtomicUsize::new(0),
            recovered: AtomicBool::new(false),
            closing: AtomicBool::new(false),
            reaper: reap::Reaper::start(Arc::clone(&metrics)),
            loader,
            metrics,
            request_log,
            limits,
        });
        loader::start(Arc::downgrade(&models), jobs);
        models.enqueue(|models| models.recover());
        models
    }

    /// What requests read.
    pub fn board(&self) -> &Switchboard {
        &self.board
    }

    /// What a model serves now: the one read of the snapshot that a request does.
    ///
    /// # Errors
    /// `MODEL_UNKNOWN`; `MODEL_NOT_READY` while the start has not yet read the store.
    pub fn served(&self, model: &str) -> Result<Arc<Served>> {
        self.board.served(model).map_err(|unknown| {
            if !self.is_recovered() {
                return Error::new(Code::ModelNotReady, "the server is starting");
            }
            // Only refusals look at the catalogue.
            let stored = self.with_catalog(|catalog| catalog.get(model).is_some_and(Entry::exists));
            match stored {
                true => {
                    Error::new(Code::ModelNotReady, format!("no version of model {model} has been activated"))
                }
                false => unknown,
            }
        })
    }

    /// The store, for reading parts back.
    pub fn store(&self) -> &Store {
        &self.store
    }

    /// All limits.
    pub fn limits(&self) -> &Limits {
        &self.limits
    }

    /// All metrics.
    pub fn metrics(&self) -> &Arc<Metrics> {
        &self.metrics
    }

    /// Has start-up loaded what was active? Until then the server is not ready.
    pub fn is_recovered(&self) -> bool {
        self.recovered.load(Ordering::Acquire)
    }

    /// Refuses changes from now on: the process is about to end, and a change that has not begun would be cut.
    pub fn close(&self) {
        self.closing.store(true, Ordering::Release);
        self.board.announce();
    }

    /// Is the process about to end?
    pub fn is_closing(&self) -> bool {
        self.closing.load(Ordering::Acquire)
    }

    /// Claims a model for one change. A second change at the same time is refused, never queued: whoever sends it has
    /// to see what the first one did.
    ///
    /// # Errors
    /// `UPLOAD_IN_PROGRESS`, `SHUTTING_DOWN`.
    pub fn claim(self: &Arc<Self>, model: &ModelName) -> Result<Claim> {
        if self.is_closing() {
            return Err(Error::new(Code::ShuttingDown, "the server is shutting down and takes no changes"));
        }
        let mut busy = self.busy.lock().unwrap_or_else(PoisonError::into_inner);
        if !busy.insert(model.clone()) {
            return Err(Error::new(
                Code::UploadInProgress,
                format!("another change of model {model} is under way; look at its result, then try again"),
            ));
        }
        Ok(Claim { models: Arc::clone(self), model: model.clone() })
    }

    /// Takes one of the places for uploads.
    ///
    /// # Errors
    /// `UPLOAD_BUSY`.
    pub fn upload_place(self: &Arc<Self>) -> Result<UploadPlace> {
        let place = UploadPlace(Arc::clone(self));
        if self.uploads.fetch_add(1, Ordering::AcqRel) >= self.limits.uploads {
            return Err(Error::new(
                Code::UploadBusy,
                format!("{} uploads are under way, which is the limit", self.limits.uploads),
            ));
        }
        Ok(place)
    }
}

/// A model claimed for one change; given back when dropped.
#[derive(Debug)]
pub struct Claim {
    models: Arc<Models>,
    model: ModelName,
}

impl Claim {
    /// The claimed model.
    pub fn model(&self) -> &ModelName {
        &self.model
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        self.models.busy.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.model);
    }
}

/// One of the places for uploads; given back when dropped.
#[derive(Debug)]
pub struct UploadPlace(Arc<Models>);

impl Drop for UploadPlace {
    fn drop(&mut self) {
        self.0.uploads.fetch_sub(1, Ordering::AcqRel);
    }
}
