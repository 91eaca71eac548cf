//! Workers as the model sees them: how many there are, and what follows when they die again and again.

use std::sync::{Arc, Mutex, PoisonError, Weak};

use super::{Models, Version};
use crate::bundle::OnDegraded;
use crate::engine::{Notify, Workers, pinned_count};
use crate::error::Result;
use crate::store::{ModelName, Reason};

impl Models {
    /// The workers of what a model serves; none if it runs in this process.
    pub fn workers(&self, model: &ModelName) -> Workers {
        let snapshot = self.board.load();
        let version = snapshot.get(model.as_str()).and_then(|served| served.active().ok());
        version.and_then(|version| version.queue()).map(|queue| queue.workers()).unwrap_or_default()
    }

    /// Brings the metrics of workers up to date.
    pub fn count_workers(&self) {
        // Two at once would count twice.
        static COUNTING: Mutex<()> = Mutex::new(());
        let _counting = COUNTING.lock().unwrap_or_else(PoisonError::into_inner);
        self.metrics.forget_workers();
        for served in self.board.load().iter() {
            let workers = self.workers(&served.model).list;
            if !workers.is_empty() {
                let states: Vec<&str> = workers.iter().map(|worker| worker.state.name()).collect();
                let resident = workers.iter().map(|worker| worker.resident).sum();
                self.metrics.workers(served.model.as_str(), &states, resident);
            }
        }
        self.metrics.pinned_libraries().set(i64::try_from(pinned_count()).unwrap_or(i64::MAX));
    }

    /// What the workers of a model's versions call.
    pub(super) fn notify_degraded(&self, model: &ModelName) -> Notify {
        let (models, model) = (Weak::clone(&self.this), model.clone());
        Notify::new(move || {
            if let Some(models) = models.upgrade() {
                models.degradation_changed(&model);
            }
        })
    }

    /// Called on a worker's thread, which must not wait.
    fn degradation_changed(&self, model: &ModelName) {
        // Whoever watches the model's health looks again.
        self.board.announce();
        if self.degraded_version(model).is_some_and(|version| wants_rollback(&version)) {
            let (models, model) = (Weak::clone(&self.this), model.clone());
            // Not on the loader: the version before is in memory as a rule, and must not wait for another one's load.
            let roll_back = move || {
                if let Some(models) = models.upgrade() {
                    models.roll_back_degraded(&model);
                }
            };
            let thread = std::thread::Builder::new().name("baton-rollback".to_owned());
            if let Err(error) = thread.spawn(roll_back) {
                tracing::error!("cannot start a thread to roll back on: {error}");
            }
        }
    }

    /// What a model serves, if that is degraded.
    fn degraded_version(&self, model: &ModelName) -> Option<Arc<Version>> {
        let snapshot = self.board.load();
        let version = snapshot.get(model.as_str())?.active().ok().cloned()?;
        version.is_degraded().then_some(version)
    }

    fn roll_back_degraded(self: &Arc<Self>, model: &ModelName) {
        // Another death may have asked for the same before.
        let Some(version) = self.degraded_version(model).filter(|version| wants_rollback(version)) else {
            return;
        };
        let number = version.identity.number;
        match self.roll_back_now(model) {
            Ok(false) => {
                let model = model.clone();
                self.enqueue(move |models| {
                    let rolled_back = models.claim(&model).and_then(|claim| {
                        let (entry, record) = models.rollback_target(&model)?;
                        let check = |_: &Version| Ok(Vec::new());
                        models.activate_record(claim.model(), &record, &entry, Reason::Rollback, check)
                    });
                    if let Err(error) = rolled_back {
                        tracing::error!(%model, "degraded, and not rolled back: {error}");
                    }
                });
            }
            Ok(true) => {
                tracing::error!(%model, version = %number, "rolled back: its workers died again and again");
                let trouble =
                    format!("version {number} was rolled back, as its workers died again and again");
                self.with_catalog(|catalog| {
                    catalog.entry(model.clone()).or_default().trouble = Some(trouble)
                });
            }
            Err(error) => {
                tracing::error!(%model, version = %number, "degraded, and not rolled back: {error}")
            }
        }
    }

    /// Goes back if the version before is in memory. Was it?
    fn roll_back_now(&self, model: &ModelName) -> Result<bool> {
        let (entry, record) = self.rollback_target(model)?;
        self.roll_back_warm(model, &entry, &record).map(|outcome| outcome.is_some())
    }
}

fn wants_rollback(version: &Version) -> bool {
    version.settings.workers.on_degraded == OnDegraded::Rollback
}
