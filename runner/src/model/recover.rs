//! Start-up: read the store, serve what was active. A version that cannot be served any more (damaged files, a machine
//! on which golden rows fail) is replaced by the newest earlier one that can; nothing is skipped silently.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::Models;
use super::catalog::Entry;
use super::swap::Target;
use crate::error::{Code, Result};
use crate::store::{ModelName, VersionRecord, VersionState};

impl Models {
    /// Loads every model's active version; then the server is ready.
    pub(super) fn recover(&self) {
        let names = self.store.models().unwrap_or_else(|error| {
            tracing::error!("cannot read the store: {error}");
            Vec::new()
        });
        let known: Vec<ModelName> = names
            .into_iter()
            .filter(|model| match self.read_entry(model) {
                Ok(entry) => {
                    self.with_catalog(|catalog| catalog.insert(model.clone(), entry));
                    true
                }
                Err(error) => {
                    tracing::error!(%model, "cannot read the model: {error}");
                    false
                }
            })
            .collect();
        for model in &known {
            let Ok(entry) = self.entry(model) else { continue };
            if entry.log.last().is_some_and(|pointer| pointer.version.is_some()) {
                let target = Target::Nothing { reason: "it is being loaded after the start".to_owned() };
                self.publish(model, entry.generation, target);
            }
        }
        for model in &known {
            self.recover_model(model);
        }
        if let Err(error) = self.sweep() {
            tracing::debug!("cannot collect garbage: {error}");
        }
        self.recovered.store(true, Ordering::Release);
        self.board.announce();
        tracing::info!(models = known.len(), "recovered the store");
    }

    fn read_entry(&self, model: &ModelName) -> Result<Entry> {
        let records = self.store.versions(model)?;
        let mut log = self.store.pointers(model)?;
        log.reverse();
        // A damaged newest entry still counts: its number must not be given out again.
        let generation = self.store.generations(model)?.into_iter().max().unwrap_or(0);
        if log.last().map_or(0, |pointer| pointer.generation) != generation {
            self.metrics.store_alarms().inc();
        }
        Ok(Entry { generation, records, log, ..Entry::default() })
    }

    fn recover_model(&self, model: &ModelName) {
        let Ok(entry) = self.entry(model) else { return };
        let Some(newest) = entry.log.last() else { return };
        let Some(wanted) = newest.version else {
            self.publish(model, entry.generation, Target::Nothing { reason: "unloaded".to_owned() });
            return;
        };
        let stored = |number| {
            entry
                .records
                .iter()
                .find(|record| record.number == number && record.state == VersionState::Stored)
        };
        let mut candidates: Vec<&VersionRecord> = Vec::new();
        for record in entry.log.iter().rev().filter_map(|pointer| pointer.version.and_then(stored)) {
            if !candidates.iter().any(|known| known.number == record.number) {
                candidates.push(record);
            }
        }
        let mut first_fault = None;
        for record in candidates {
            match self.prepare_stored(model, record) {
                Ok(version) => {
                    self.publish(model, entry.generation, Target::Version(Arc::new(version)));
                    if record.number == wanted {
                        tracing::info!(%model, version = %wanted, generation = entry.generation, "serving");
                    } else {
                        let trouble = format!(
                            "version {wanted} cannot be served{}; serving version {} instead",
                            first_fault.map_or_else(String::new, |fault| format!(" ({fault})")),
                            record.number
                        );
                        tracing::error!(%model, "{trouble}");
                        self.with_catalog(|catalog| {
                            catalog.entry(model.clone()).or_default().trouble = Some(trouble);
                        });
                    }
                    return;
                }
                Err(error) => {
                    if error.code() == Code::StoreCorrupt {
                        self.metrics.store_alarms().inc();
                    }
                    tracing::error!(%model, version = %record.number, "cannot serve the version: {error}");
                    first_fault.get_or_insert_with(|| error.text().to_owned());
                }
            }
        }
        let reason = first_fault.unwrap_or_else(|| format!("version {wanted} is not in the store any more"));
        self.publish(model, entry.generation, Target::Nothing { reason });
    }
}
