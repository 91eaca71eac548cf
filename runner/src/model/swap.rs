//! The one place that changes what is served: the pointer in the store, then the snapshot.
//!
//! Durable before visible: the pointer's entry is on disk before a request can see the new version. The exception is a
//! roll-back, which must work with the store gone; it says so in a warning.

use std::collections::HashSet;
use std::sync::{Arc, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

use super::Models;
use super::snapshot::{Served, Slot};
use super::version::Version;
use crate::contract::{self, Contract, Origin};
use crate::error::{Code, Error, Result};
use crate::failpoint;
use crate::store::{ModelName, Pointer, Reason, StoreError, VersionNumber};

/// What the pointer is to say.
pub(super) enum Target {
    Version(Arc<Version>),
    Nothing { reason: String },
}

/// How and why the pointer moves.
pub(super) struct Change {
    pub reason: Reason,
    pub durability: Durability,
    /// Rules of compatibility that the caller chose to break.
    pub broken_rules: Vec<String>,
}

impl Change {
    /// One that is on disk before it is served, and breaks nothing.
    pub(super) fn durable(reason: Reason) -> Self {
        Self { reason, durability: Durability::Required, broken_rules: Vec::new() }
    }
}

/// Must the new pointer be on disk before it is served?
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Durability {
    Required,
    /// Serve it all the same and warn.
    Preferred,
}

/// Seconds since the epoch, for people; nothing is ordered by it.
pub(super) fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |time| time.as_secs())
}

impl Models {
    /// Moves `model` from generation `from` to the next one, which serves `target`. Returns the new generation and
    /// warnings.
    ///
    /// # Errors
    /// `GENERATION_STALE` if the model has moved since `from`; `SERVICE_NAME_TAKEN`; the store's error. Nothing has
    /// changed then.
    pub(super) fn swap(
        &self,
        model: &ModelName,
        from: u64,
        target: Target,
        change: Change,
    ) -> Result<(u64, Vec<String>)> {
        let _order = self.order.lock().unwrap_or_else(PoisonError::into_inner);
        let current = self.with_catalog(|catalog| catalog.get(model).map_or(0, |entry| entry.generation));
        if current != from {
            return Err(stale(model, from, current));
        }
        if let Target::Version(version) = &target {
            self.check_services(model, version.contract.as_ref())?;
        }
        let generation = from + 1;
        let Change { reason, durability, broken_rules } = change;
        let (version, digest) = match &target {
            Target::Version(version) => (Some(version.identity.number), Some(version.identity.digest)),
            Target::Nothing { .. } => (None, None),
        };
        let pointer = Pointer { generation, version, digest, reason, at: now(), broken_rules };
        let mut warnings = Vec::new();
        match self.store.advance(model, &pointer) {
            Ok(()) => {}
            Err(error @ StoreError::Io { .. }) if durability == Durability::Preferred => {
                tracing::error!(%model, "the roll-back is served but not stored: {error}");
                warnings.push(
                    "the store did not take the change: it is served now, but not after a restart".to_owned(),
                );
            }
            Err(error) => return Err(error.into()),
        }
        // From here on nothing can fail (the failpoint only delays or aborts).
        let _ = failpoint::hit("swap");
        self.publish(model, generation, target);
        self.with_catalog(|catalog| catalog.entry(model.clone()).or_default().log.push(pointer));
        Ok((generation, warnings))
    }

    /// Refuses a pushed contract with a service that is served already: by another model, or by Baton itself.
    ///
    /// # Errors
    /// `SERVICE_NAME_TAKEN`.
    pub(super) fn check_services(&self, model: &ModelName, contract: Option<&Contract>) -> Result<()> {
        let Some(contract) = contract.filter(|contract| contract.origin == Origin::Pushed) else {
            return Ok(());
        };
        let taken = |service: &str, by: &str| {
            Error::new(Code::ServiceNameTaken, format!("the service {service} is served by {by} already"))
        };
        let snapshot = self.board.load();
        for service in contract.services() {
            let others = service.starts_with("baton.") && !contract::is_own_package(model.as_str(), &service);
            if is_reserved(&service) || others {
                return Err(taken(&service, "Baton itself"));
            }
            let others = snapshot.iter().filter(|served| served.model != *model);
            for other in others.filter_map(|served| served.active().ok()) {
                let theirs = other.contract.as_ref().filter(|theirs| theirs.origin == Origin::Pushed);
                if theirs.is_some_and(|theirs| theirs.services().any(|theirs| theirs == service)) {
                    return Err(taken(&service, &format!("model {}", other.identity.model)));
                }
            }
        }
        Ok(())
    }

    /// Publishes the snapshot and follows it in catalog and metrics.
    pub(super) fn publish(&self, model: &ModelName, generation: u64, target: Target) {
        let (new, slot, trouble) = match target {
            Target::Version(version) => (Some(Arc::clone(&version)), Slot::Active(version), None),
            Target::Nothing { reason } => (None, Slot::Empty { reason: reason.clone() }, Some(reason)),
        };
        let old = self.board.load().get(model.as_str()).and_then(|served| match &served.slot {
            Slot::Active(version) => Some(Arc::clone(version)),
            Slot::Empty { .. } => None,
        });
        self.board.publish(Served::new(model.clone(), generation, slot));
        let texts = |version: &Arc<Version>| {
            (Arc::clone(&version.identity.number_text), Arc::clone(&version.identity.digest_text))
        };
        let (old_texts, new_texts) = (old.as_ref().map(texts), new.as_ref().map(texts));
        self.metrics.switched(model.as_str(), generation, old_texts, new_texts);
        self.with_catalog(|catalog| {
            let entry = catalog.entry(model.clone()).or_default();
            entry.generation = generation;
            entry.active = new.as_ref().map(|version| version.identity.number);
            entry.trouble = trouble;
            entry.ready.retain(|version| Some(version.identity.number) != entry.active);
            if let Some(old) = old {
                if Some(old.identity.number) != entry.active {
                    entry.ready.insert(0, old);
                }
                entry.ready.truncate(self.limits.kept_ready);
            }
        });
        self.trim_ready();
    }

    /// Lets go of earlier versions beyond the memory budget, the longest retired models' last first.
    pub(super) fn trim_ready(&self) {
        let released: Vec<Arc<Version>> = self.with_catalog(|catalog| {
            let mut bytes = 0_u64;
            let mut released = Vec::new();
            for entry in catalog.values_mut() {
                let kept = std::mem::take(&mut entry.ready);
                for version in kept {
                    bytes = bytes.saturating_add(version.artifact_size);
                    if bytes <= self.limits.kept_ready_bytes {
                        entry.ready.push(version);
                    } else {
                        released.push(version);
                    }
                }
            }
            let ready: usize = catalog.values().map(|entry| entry.ready.len()).sum();
            self.metrics.ready().set(i64::try_from(ready).unwrap_or(i64::MAX));
            released
        });
        drop(released);
    }

    /// The versions of a model that are in use: never collected.
    pub(super) fn pinned(&self, model: &ModelName) -> HashSet<VersionNumber> {
        self.with_catalog(|catalog| {
            let Some(entry) = catalog.get(model) else { return HashSet::new() };
            let ready = entry.ready.iter().map(|version| version.identity.number);
            ready.chain(entry.active).chain(entry.rollback_target()).collect()
        })
    }
}

/// Services of our own, and those whose paths are those of other routes.
fn is_reserved(service: &str) -> bool {
    const ROUTES: [&str; 8] = ["v1", "v2", "docs", "console", "metrics", "livez", "readyz", "openapi"];
    service == "inference.GRPCInferenceService" || service.starts_with("grpc.") || ROUTES.contains(&service)
}

pub(super) fn stale(model: &ModelName, expected: u64, current: u64) -> Error {
    Error::new(
        Code::GenerationStale,
        format!("model {model} is at generation {current}, the change was meant for generation {expected}"),
    )
    .with_details(serde_json::json!({ "expected": expected, "generation": current }))
}
