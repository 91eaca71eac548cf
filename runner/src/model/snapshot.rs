//! The immutable value that a request reads once: which version of each model is served.

use std::collections::HashMap;
use std::sync::Arc;

use arc_swap::ArcSwap;
use std::sync::{Mutex, PoisonError};
use tokio::sync::watch;

use super::version::Version;
use crate::contract::{Contract, Origin};
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
    /// Typed methods by path. Made of the models' contracts with each snapshot, so neither can be without the other.
    routes: HashMap<String, Route>,
}

/// A typed method: the model that serves it, and which of its contract's methods it is.
#[derive(Debug, Clone)]
pub struct Route {
    pub served: Arc<Served>,
    pub method: usize,
}

impl Snapshot {
    /// The entry of a model.
    pub fn get(&self, model: &str) -> Option<&Arc<Served>> {
        self.models.get(model)
    }

    /// The method at `/package.Service/Method`.
    pub fn route(&self, path: &str) -> Option<&Route> {
        self.routes.get(path)
    }

    fn new(models: HashMap<ModelName, Arc<Served>>, before: &Self) -> Self {
        let mut routes = HashMap::new();
        // A pushed contract's paths are its own (`check_services`); an inferred one keeps what it has, or takes what is
        // free.
        let has = |served: &Served, contract: &Contract| {
            let paths = contract.methods.iter().map(|method| before.route(&method.path));
            paths.flatten().any(|route| route.served.model == served.model)
        };
        let mut served: Vec<(&Arc<Served>, &Contract)> = models
            .values()
            .filter_map(|served| Some((served, served.active().ok()?.contract.as_ref()?)))
            .collect();
        served.sort_by_key(|(served, contract)| {
            (contract.origin == Origin::Inferred, !has(served, contract), served.model.clone())
        });
        for (served, contract) in served {
            for (method, bound) in contract.methods.iter().enumerate() {
                let route = || Route { served: Arc::clone(served), method };
                routes.entry(bound.path.clone()).or_insert_with(route);
            }
        }
        Self { models, routes }
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
    changed: watch::Sender<()>,
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

    /// The typed method at a path.
    pub fn route(&self, path: &str) -> Option<Route> {
        self.current.load().route(path).cloned()
    }

    /// Told of each new snapshot.
    pub fn follow(&self) -> watch::Receiver<()> {
        self.changed.subscribe()
    }

    /// Tells those who follow to look again.
    pub(super) fn announce(&self) {
        self.changed.send_replace(());
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
        let before = self.current.load();
        let mut models = before.models.clone();
        change(&mut models);
        self.current.store(Arc::new(Snapshot::new(models, &before)));
        self.announce();
    }
}
