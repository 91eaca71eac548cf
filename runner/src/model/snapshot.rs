//! The immutable value that a request reads once: which version of each model is served.

use std::collections::HashMap;
use std::sync::Arc;

use arc_swap::ArcSwap;
use std::sync::{Mutex, PoisonError};

use super::version::Version;
use crate::error::{Code, Error, Result};
use crate::store::ModelName;

/// What one model serves.
#[derive(Debug)]
pub struct Served {
    pub model: ModelName,
    pub generation: u64,
    /// `generation` in decimal, as answers carry it.
    pub generation_text: Arc<str>,
    pub slot: Slot,
}

/// A version, or why there is none.
#[derive(Debug)]
pub enum Slot {
    Active(Arc<Version>),
    Empty { reason: String },
}

impl Served {
    /// A model's entry in the snapshot.
    pub fn new(model: ModelName, generation: u64, slot: Slot) -> Self {
        Self { model, generation, generation_text: generation.to_string().into(), slot }
    }

    /// The version being served.
    ///
    /// # Errors
    /// `MODEL_NOT_READY` with the reason.
    pub fn active(&self) -> Result<&Arc<Version>> {
        match &self.slot {
            Slot::Active(version) => Ok(version),
            Slot::Empty { reason } => Err(Error::new(
                Code::ModelNotReady,
                format!("model {} is not being served: {reason}", self.model),
            )),
        }
    }
}

/// All models. Models are separate `Arc`s, so that a slow request to one does not keep a retired version of another.
#[derive(Debug, Default)]
pub struct Snapshot {
    models: HashMap<ModelName, Arc<Served>>,
}

impl Snapshot {
    /// The entry of a model.
    pub fn get(&self, model: &str) -> Option<&Arc<Served>> {
        self.models.get(model)
    }

    /// All entries, in no order.
    pub fn iter(&self) -> impl Iterator<Item = &Arc<Served>> {
        self.models.values()
    }
}

/// Holds the current snapshot. Readers never wait for the writer, nor the writer for readers.
#[derive(Debug, Default)]
pub struct Switchboard {
    current: ArcSwap<Snapshot>,
    /// Writers take turns; no reader takes this.
    writer: Mutex<()>,
}

impl Switchboard {
    /// The current snapshot.
    pub fn load(&self) -> Arc<Snapshot> {
        self.current.load_full()
    }

    /// The entry of one model, which a request keeps to its end.
    ///
    /// # Errors
    /// `MODEL_UNKNOWN`.
    pub fn served(&self, model: &str) -> Result<Arc<Served>> {
        // The guard lives for this line only: a request keeps the model's own `Arc`, never the whole snapshot.
        let served = self.current.load().get(model).cloned();
        served.ok_or_else(|| {
            let shown: String = model.chars().take(64).collect();
            Error::new(Code::ModelUnknown, format!("there is no model {shown:?}"))
        })
    }

    /// Publishes a model's new entry. Called by `swap` alone.
    pub(super) fn publish(&self, served: Served) {
        self.change(|models| {
            models.insert(served.model.clone(), Arc::new(served));
        });
    }

    /// Takes a model out of the snapshot.
    pub(super) fn withdraw(&self, model: &ModelName) {
        self.change(|models| {
            models.remove(model);
        });
    }

    fn change(&self, change: impl FnOnce(&mut HashMap<ModelName, Arc<Served>>)) {
        let _turn = self.writer.lock().unwrap_or_else(PoisonError::into_inner);
        let mut models = self.current.load().models.clone();
        change(&mut models);
        self.current.store(Arc::new(Snapshot { models }));
    }
}
