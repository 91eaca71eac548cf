//! Changes of what is served among stored versions: activation, roll-back, unloading, removal.

use std::sync::Arc;

use super::catalog::{Entry, PublicState};
use super::push::check_expected;
use super::swap::{Change, Durability, Target};
use super::version::Version;
use super::{Claim, Models};
use crate::bundle::Digest;
use crate::error::{Code, Error, Result};
use crate::store::{ModelName, Reason, VersionNumber, VersionRecord, VersionState};

/// What a change came to.
#[derive(Debug, Clone)]
pub struct Outcome {
    pub model: ModelName,
    /// `None` after a dry run, or when nothing is served.
    pub version: Option<VersionNumber>,
    pub digest: Option<Digest>,
    pub generation: u64,
    pub state: PublicState,
    /// The bundle was there already, as asked.
    pub unchanged: bool,
    /// A new version was stored.
    pub created: bool,
    pub warnings: Vec<String>,
}

impl Outcome {
    #[must_use]
    pub(super) fn with_warnings(mut self, warnings: Vec<String>) -> Self {
        self.warnings = warnings;
        self
    }
}

impl Models {
    /// Serves a stored version.
    ///
    /// # Errors
    /// `VERSION_UNKNOWN`, `VERSION_COLLECTED`, `GENERATION_STALE`, or why the version cannot be prepared.
    pub async fn activate(
        self: &Arc<Self>,
        claim: Claim,
        number: Option<VersionNumber>,
        expected_generation: Option<u64>,
    ) -> Result<Outcome> {
        self.on_loader(move |models| {
            let model = claim.model();
            let entry = models.entry(model)?;
            check_expected(model, expected_generation, &entry)?;
            let record = match number {
                Some(number) => entry.record(model, number)?,
                None => entry.base().ok_or_else(|| {
                    Error::new(
                        Code::VersionUnknown,
                        format!("model {model} has no version that can be activated"),
                    )
                })?,
            };
            if entry.active == Some(record.number) {
                return Ok(Outcome {
                    unchanged: true,
                    ..outcome(model, record, entry.generation, PublicState::Active)
                });
            }
            models.activate_record(model, record, &entry, Reason::Activate, |_| Ok(Vec::new()))
        })
        .await
    }

    /// Goes back to the version that was served before. If that is still in memory this is one pointer store, done
    /// here and now; it neither waits for the loader nor depends on the store.
    ///
    /// # Errors
    /// `NOTHING_TO_ROLL_BACK`, `GENERATION_STALE`, or why the version cannot be prepared.
    pub async fn rollback(
        self: &Arc<Self>,
        model: ModelName,
        expected_generation: Option<u64>,
    ) -> Result<Outcome> {
        check_expected(&model, expected_generation, &self.entry(&model)?)?;
        let (entry, record) = self.rollback_target(&model)?;
        if let Some(outcome) = self.roll_back_warm(&model, &entry, &record)? {
            return Ok(outcome);
        }
        let claim = self.claim(&model)?;
        self.on_loader(move |models| {
            models.activate_record(claim.model(), &record, &entry, Reason::Rollback, |_| Ok(Vec::new()))
        })
        .await
    }

    /// Where a roll-back of a model goes, and what is known of the model.
    pub(super) fn rollback_target(&self, model: &ModelName) -> Result<(Entry, VersionRecord)> {
        let entry = self.entry(model)?;
        let target = entry.rollback_target().ok_or_else(|| {
            Error::new(Code::NothingToRollBack, format!("model {model} has no earlier version to go back to"))
        })?;
        let record = entry.record(model, target)?.clone();
        Ok((entry, record))
    }

    /// Serves an earlier version again if it is in memory; `None` if it is not.
    pub(super) fn roll_back_warm(
        &self,
        model: &ModelName,
        entry: &Entry,
        record: &VersionRecord,
    ) -> Result<Option<Outcome>> {
        let Some(version) = entry.warm(record.number) else { return Ok(None) };
        let version = Target::Version(Arc::clone(version));
        let change = Change { durability: Durability::Preferred, ..Change::durable(Reason::Rollback) };
        let (generation, warnings) = self.swap(model, entry.generation, version, change)?;
        tracing::info!(%model, version = %record.number, generation, "rolled back");
        self.metrics.changed(model.as_str(), "rolled_back");
        Ok(Some(outcome(model, record, generation, PublicState::Active).with_warnings(warnings)))
    }

    /// Prepares a stored version, unless it is in memory, and serves it if `check` does not object; it gives the rules
    /// of compatibility that are broken on purpose.
    pub(super) fn activate_record(
        &self,
        model: &ModelName,
        record: &VersionRecord,
        entry: &Entry,
        reason: Reason,
        check: impl FnOnce(&Version) -> Result<Vec<String>>,
    ) -> Result<Outcome> {
        if record.state != VersionState::Stored && entry.warm(record.number).is_none() {
            return Err(Error::new(
                Code::VersionCollected,
                format!(
                    "the files of version {} of model {model} are no longer stored; push it again",
                    record.number
                ),
            ));
        }
        let version = match entry.warm(record.number) {
            Some(version) => Arc::clone(version),
            None => Arc::new(self.prepare_stored(model, record)?),
        };
        let broken_rules = check(&version)?;
        let (generation, warnings) = self.swap(
            model,
            entry.generation,
            Target::Version(version),
            Change { broken_rules, ..Change::durable(reason) },
        )?;
        tracing::info!(%model, version = %record.number, generation, ?reason, "activated");
        self.metrics
            .changed(model.as_str(), if reason == Reason::Rollback { "rolled_back" } else { "activated" });
        Ok(outcome(model, record, generation, PublicState::Active).with_warnings(warnings))
    }

    /// Serves nothing under this name until a version is activated.
    ///
    /// # Errors
    /// `MODEL_UNKNOWN`, or the store's.
    pub async fn deactivate(self: &Arc<Self>, claim: Claim) -> Result<u64> {
        self.on_loader(move |models| {
            let model = claim.model();
            let entry = models.entry(model)?;
            if entry.active.is_none() {
                return Ok(entry.generation);
            }
            let target = Target::Nothing { reason: "unloaded".to_owned() };
            let (generation, _) =
                models.swap(model, entry.generation, target, Change::durable(Reason::Unload))?;
            // Unloading is asked for to free memory.
            models.with_catalog(|catalog| catalog.entry(model.clone()).or_default().ready.clear());
            models.trim_ready();
            Ok(generation)
        })
        .await
    }

    /// Removes a version's files. The number is not given out again.
    ///
    /// # Errors
    /// `VERSION_UNKNOWN`, `VERSION_IN_USE`.
    pub async fn remove_version(self: &Arc<Self>, claim: Claim, number: VersionNumber) -> Result<()> {
        self.on_loader(move |models| {
            let model = claim.model();
            let entry = models.entry(model)?;
            let record = entry.record(model, number)?;
            if entry.active == Some(number) {
                return Err(Error::new(
                    Code::VersionInUse,
                    format!("version {number} of model {model} is being served; activate another one first"),
                ));
            }
            models.mark_removed(model, [record])?;
            Ok(models.sweep()?).map(|_: usize| ())
        })
        .await
    }

    /// Removes a model. Refused while a version is served, unless `force`.
    ///
    /// # Errors
    /// `MODEL_UNKNOWN`, `VERSION_IN_USE`.
    pub async fn remove_model(self: &Arc<Self>, claim: Claim, force: bool) -> Result<()> {
        self.on_loader(move |models| {
            let model = claim.model();
            let entry = models.entry(model)?;
            if let (Some(active), false) = (entry.active, force) {
                return Err(Error::new(
                    Code::VersionInUse,
                    format!("version {active} of model {model} is being served; give force=true to remove it all the same"),
                ));
            }
            let target = Target::Nothing { reason: "removed".to_owned() };
            models.swap(model, entry.generation, target, Change::durable(Reason::Remove))?;
            models.board.withdraw(model);
            models.mark_removed(model, &entry.records)?;
            Ok(models.sweep()?).map(|_: usize| ())
        })
        .await
    }

    fn mark_removed<'a>(
        &self,
        model: &ModelName,
        records: impl IntoIterator<Item = &'a VersionRecord>,
    ) -> Result<()> {
        for record in records {
            let removed = VersionRecord { state: VersionState::Removed, ..record.clone() };
            self.store.update_version(model, &removed)?;
            self.with_catalog(|catalog| {
                let entry = catalog.entry(model.clone()).or_default();
                entry.ready.retain(|version| version.identity.number != removed.number);
                if let Some(known) = entry.records.iter_mut().find(|known| known.number == removed.number) {
                    known.clone_from(&removed);
                }
            });
        }
        self.trim_ready();
        Ok(())
    }
}

fn outcome(model: &ModelName, record: &VersionRecord, generation: u64, state: PublicState) -> Outcome {
    Outcome {
        model: model.clone(),
        version: Some(record.number),
        digest: Some(record.digest),
        generation,
        state,
        unchanged: false,
        created: false,
        warnings: Vec::new(),
    }
}
