//! What is known of each model: its versions, its activation log, what is kept ready, what went wrong last.
//!
//! For the admin side and for decisions; no request for an inference reads it.

use std::collections::BTreeMap;
use std::sync::{Arc, PoisonError};

use super::Models;
use super::version::Version;
use crate::bundle::PartKind;
use crate::error::{Code, Error, Result};
use crate::store::{ModelName, Pointer, Reason, VersionNumber, VersionRecord, VersionState};

pub(super) type Catalog = BTreeMap<ModelName, Entry>;

/// One model.
#[derive(Debug, Clone, Default)]
pub struct Entry {
    /// The highest generation given out.
    pub generation: u64,
    /// What is being served.
    pub active: Option<VersionNumber>,
    /// In the order of their numbers.
    pub records: Vec<VersionRecord>,
    /// The activation log, oldest first.
    pub log: Vec<Pointer>,
    /// Earlier versions kept in memory, the latest retired first.
    pub(super) ready: Vec<Arc<Version>>,
    /// Why the version that should be served is not, or the last refusal of a push.
    pub trouble: Option<String>,
    /// Is a push or activation being prepared?
    pub preparing: bool,
}

/// A version's state as the admin API shows it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum PublicState {
    /// In the store.
    Stored,
    /// In the store and in memory: activation is one pointer store.
    Ready,
    /// Being served.
    Active,
    /// Its files were collected.
    Collected,
    /// It was removed.
    Removed,
}

impl Entry {
    /// The record of a version.
    ///
    /// # Errors
    /// `VERSION_UNKNOWN`.
    pub fn record(&self, model: &ModelName, number: VersionNumber) -> Result<&VersionRecord> {
        let known = self.records.iter().find(|record| record.number == number);
        known
            .ok_or_else(|| Error::new(Code::VersionUnknown, format!("model {model} has no version {number}")))
    }

    /// The state of a version.
    pub fn state(&self, record: &VersionRecord) -> PublicState {
        match record.state {
            VersionState::Collected => PublicState::Collected,
            VersionState::Removed => PublicState::Removed,
            VersionState::Stored if self.active == Some(record.number) => PublicState::Active,
            VersionState::Stored if self.warm(record.number).is_some() => PublicState::Ready,
            VersionState::Stored => PublicState::Stored,
        }
    }

    pub(super) fn warm(&self, number: VersionNumber) -> Option<&Arc<Version>> {
        self.ready.iter().find(|version| version.identity.number == number)
    }

    /// Is anything left of the model but its numbers?
    pub fn exists(&self) -> bool {
        self.records.iter().any(|record| record.state != VersionState::Removed)
    }

    /// The version whose parts a push without them takes: the active one, else the last that was, else the newest.
    pub(super) fn base(&self) -> Option<&VersionRecord> {
        let stored = |number: VersionNumber| {
            self.records.iter().find(|record| record.number == number && record.state == VersionState::Stored)
        };
        let last_active = || self.log.iter().rev().find_map(|pointer| pointer.version.and_then(stored));
        let newest = || self.records.iter().rev().find(|record| record.state == VersionState::Stored);
        self.active.and_then(stored).or_else(last_active).or_else(newest)
    }

    /// Where a roll-back goes: the log is read as a stack, a roll-back being a pop. So a second roll-back goes one
    /// further back instead of to where the first one came from.
    pub(super) fn rollback_target(&self) -> Option<VersionNumber> {
        let mut stack: Vec<VersionNumber> = Vec::new();
        for pointer in &self.log {
            match (pointer.reason, pointer.version) {
                (Reason::Rollback, Some(target)) => {
                    while stack.last().is_some_and(|top| *top != target) {
                        stack.pop();
                    }
                    if stack.is_empty() {
                        stack.push(target);
                    }
                }
                (_, Some(version)) if stack.last() != Some(&version) => stack.push(version),
                _ => {}
            }
        }
        let usable = |number: &VersionNumber| {
            let record = self.records.iter().find(|record| record.number == *number);
            record.is_some_and(|record| record.state == VersionState::Stored) || self.warm(*number).is_some()
        };
        stack.into_iter().rev().find(|number| Some(*number) != self.active && usable(number))
    }

    /// Bytes of a version's artifact.
    pub fn artifact_size(record: &VersionRecord) -> u64 {
        record.manifest.part(PartKind::Artifact).map_or(0, |part| part.size)
    }
}

impl Models {
    pub(super) fn with_catalog<T>(&self, read: impl FnOnce(&mut Catalog) -> T) -> T {
        read(&mut self.catalog.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// A copy of what is known of a model.
    ///
    /// # Errors
    /// `MODEL_UNKNOWN`.
    pub fn entry(&self, model: &ModelName) -> Result<Entry> {
        self.with_catalog(|catalog| catalog.get(model).filter(|entry| entry.exists()).cloned())
            .ok_or_else(|| Error::new(Code::ModelUnknown, format!("there is no model {model}")))
    }

    /// A copy of all that is known.
    pub fn entries(&self) -> Vec<(ModelName, Entry)> {
        self.with_catalog(|catalog| {
            let existing = catalog.iter().filter(|(_, entry)| entry.exists());
            existing.map(|(model, entry)| (model.clone(), entry.clone())).collect()
        })
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::bundle::{EngineKind, Manifest};

    fn entry(log: &[(Reason, u64)]) -> Entry {
        let number = |number: u64| (0..number).fold(VersionNumber::NONE, |number, _| number.next());
        let manifest = Manifest::new(EngineKind::Onnx, BTreeMap::new());
        let record = |value: u64| VersionRecord {
            number: number(value),
            digest: manifest.digest(),
            manifest: manifest.clone(),
            created_at: 0,
            state: VersionState::Stored,
        };
        let log: Vec<Pointer> = log
            .iter()
            .zip(1..)
            .map(|((reason, version), generation)| Pointer {
                generation,
                version: (*version > 0).then(|| number(*version)),
                digest: None,
                reason: *reason,
                at: 0,
                broken_rules: Vec::new(),
            })
            .collect();
        Entry {
            generation: log.len() as u64,
            active: log.last().and_then(|pointer| pointer.version),
            records: (1..=4).map(record).collect(),
            log,
            ..Entry::default()
        }
    }

    fn check_rollback(log: &[(Reason, u64)], expected: Option<&str>) {
        let target = entry(log).rollback_target().map(|number| number.to_string());
        assert_eq!(target.as_deref(), expected, "{log:?}");
    }

    #[test]
    fn rollback_walks_back_and_never_forth() {
        use Reason::{Activate, Push, Rollback, Unload};
        check_rollback(&[], None);
        check_rollback(&[(Push, 1)], None);
        check_rollback(&[(Push, 1), (Push, 2)], Some("1"));
        check_rollback(&[(Push, 1), (Push, 2), (Push, 3), (Rollback, 2)], Some("1"));
        check_rollback(&[(Push, 1), (Push, 2), (Rollback, 1)], None);
        check_rollback(&[(Push, 1), (Push, 2), (Rollback, 1), (Push, 3)], Some("1"));
        check_rollback(&[(Push, 1), (Push, 2), (Activate, 1)], Some("2"));
        check_rollback(&[(Push, 1), (Unload, 0)], Some("1"));
        check_rollback(&[(Push, 1), (Push, 2), (Unload, 0)], Some("2"));
    }
}
