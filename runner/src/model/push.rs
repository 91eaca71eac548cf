//! A push, from received parts to an active version. Read top to bottom: this is the publish protocol
//! (`docs/failure-model.md`). Each step fails without having changed what is served.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Instant;

use super::activate::Outcome;
use super::catalog::{Entry, PublicState};
use super::prepare::Candidate;
use super::swap::{Change, Target, now, stale};
use super::version::{Identity, Prepared, Version};
use super::{Claim, Models};
use crate::bundle::{
    Digest, EngineKind, GoldenRow, Manifest, Part, PartKind, Settings, check_provenance, parse_golden,
};
use crate::contract::compat::Breaking;
use crate::contract::{self, Contract, Origin};
use crate::error::{Code, Error, Result};
use crate::failpoint;
use crate::requestlog::{ModelLog, Plan};
use crate::store::{Keep, ModelName, Reason, Staged, VersionNumber, VersionRecord, VersionState};

/// What is to become of a bundle that passes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OnActivate {
    /// Served from the next request on.
    Activate,
    /// Stored, to be activated later.
    Stage,
    /// Checked only; nothing is kept.
    DryRun,
}

/// What happens to a contract that breaks clients of the one being served.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OnBreaking {
    Refuse,
    /// Taken, and recorded with the change.
    Allow,
}

/// Received parts of a bundle.
#[derive(Debug)]
pub struct Push {
    pub claim: Claim,
    pub parts: BTreeMap<PartKind, Staged>,
    pub then: OnActivate,
    pub on_breaking: OnBreaking,
    /// The generation that the caller has seen.
    pub expected_generation: Option<u64>,
}

/// A part of the new bundle: received now, or taken from an earlier version.
enum Source {
    Received(Staged),
    Stored(Part),
}

impl Source {
    fn part(&self) -> Part {
        match self {
            Source::Received(staged) => Part { digest: staged.digest(), size: staged.size() },
            Source::Stored(part) => *part,
        }
    }
}

/// A bundle put together and read, not yet prepared.
struct Bundle {
    manifest: Manifest,
    sources: BTreeMap<PartKind, Source>,
    /// The version whose golden rows a new model has to pass.
    golden_from: Option<VersionNumber>,
    warnings: Vec<String>,
}

impl Models {
    /// Runs the publish protocol for received parts.
    ///
    /// # Errors
    /// Why the bundle was refused; what is served has not changed.
    pub async fn push(self: &Arc<Self>, push: Push) -> Result<Outcome> {
        let model = push.claim.model().clone();
        let result = self.on_loader(move |models| models.push_on_loader(push)).await;
        let outcome = match &result {
            Ok(outcome) if outcome.unchanged => "unchanged",
            Ok(_) => "pushed",
            Err(error) => {
                tracing::warn!(%model, code = error.code().id(), "push refused: {}", error.text());
                "refused"
            }
        };
        self.metrics.changed(model.as_str(), outcome);
        result
    }

    fn push_on_loader(&self, push: Push) -> Result<Outcome> {
        let Push { claim, parts, then, on_breaking, expected_generation } = push;
        let model = claim.model();
        let entry = self.with_catalog(|catalog| catalog.get(model).cloned()).unwrap_or_default();
        check_expected(model, expected_generation, &entry)?;

        let bundle = self.assemble(model, parts, &entry)?;
        let digest = bundle.manifest.digest();
        let known = entry.records.iter().find(|record| {
            record.digest == digest && record.state == VersionState::Stored && then != OnActivate::DryRun
        });
        if let Some(record) = known {
            return self.push_known(model, record, &entry, then, on_breaking, bundle.sources);
        }

        self.set_preparing(model, &entry, true);
        let prepared = self.timed("prepare", || {
            failpoint::hit("prepare")
                .map_err(|error| Error::new(Code::Internal, "cannot prepare").caused_by(error))?;
            self.prepare_bundle(model, &bundle)
        });
        self.set_preparing(model, &entry, false);
        let (mut prepared, settings) = prepared.map_err(|error| match (error.code(), &bundle.golden_from) {
            (Code::GoldenFailed, Some(number)) => error.with_hint(&format!(
                "the rows were taken over from version {number}: push the rows of this model with it, or an empty \
                 golden part to drop them"
            )),
            _ => error,
        })?;
        self.check_services(model, prepared.contract.as_ref())?;
        let breaking = self.breaking(model, prepared.contract.as_ref());
        let broken_rules = allowed(breaking, on_breaking)?;
        let mut warnings = bundle.warnings;
        warnings.extend(broken_warning(&broken_rules));
        warnings.extend(self.taken_warning(model, prepared.contract.as_ref()));
        warnings.append(&mut prepared.warnings);
        let outcome = |version: Option<VersionNumber>, generation: u64, state: PublicState| Outcome {
            model: model.clone(),
            version,
            digest: Some(digest),
            generation,
            state,
            unchanged: false,
            created: version.is_some(),
            warnings: Vec::new(),
        };
        if then == OnActivate::DryRun {
            return Ok(outcome(None, entry.generation, PublicState::Ready).with_warnings(warnings));
        }

        let record = self.timed("store", || self.store_bundle(model, bundle.manifest, bundle.sources))?;
        self.with_catalog(|catalog| catalog.entry(model.clone()).or_default().records.push(record.clone()));
        if then == OnActivate::Stage {
            self.collect(model);
            return Ok(
                outcome(Some(record.number), entry.generation, PublicState::Stored).with_warnings(warnings)
            );
        }

        let version = self.version(model, &record, settings, prepared);
        let swapped = self.timed("swap", || {
            let target = Target::Version(Arc::new(version));
            self.swap(
                model,
                entry.generation,
                target,
                Change { broken_rules, ..Change::durable(Reason::Push) },
            )
        });
        let (generation, more) = swapped.map_err(|error| match error.code() {
            Code::GenerationStale => Error::new(
                Code::GenerationStale,
                format!("{}; the push is stored as version {} and not active", error.text(), record.number),
            ),
            _ => error,
        })?;
        warnings.extend(more);
        tracing::info!(%model, version = %record.number, generation, %digest, "activated a push");
        self.collect(model);
        Ok(outcome(Some(record.number), generation, PublicState::Active).with_warnings(warnings))
    }

    /// The bundle is in the store already: the same bytes are the same version.
    fn push_known(
        &self,
        model: &ModelName,
        record: &VersionRecord,
        entry: &Entry,
        then: OnActivate,
        on_breaking: OnBreaking,
        sources: BTreeMap<PartKind, Source>,
    ) -> Result<Outcome> {
        let is_active = entry.active == Some(record.number);
        if is_active || then == OnActivate::Stage {
            return Ok(Outcome {
                model: model.clone(),
                version: Some(record.number),
                digest: Some(record.digest),
                generation: entry.generation,
                state: entry.state(record),
                unchanged: true,
                created: false,
                warnings: Vec::new(),
            });
        }
        let check = |version: &Version| allowed(self.breaking(model, version.contract.as_ref()), on_breaking);
        match self.activate_record(model, record, entry, Reason::Push, check) {
            // The stored files were damaged since; those that were just received are whole.
            Err(error) if error.code() == Code::StoreCorrupt => {
                self.keep(sources)?;
                self.activate_record(model, record, entry, Reason::Push, check)
            }
            result => result,
        }
    }

    /// Puts received parts and parts of the version in force together, and reads all but the artifact.
    fn assemble(
        &self,
        model: &ModelName,
        parts: BTreeMap<PartKind, Staged>,
        entry: &Entry,
    ) -> Result<Bundle> {
        let base = entry.base();
        let mut sources: BTreeMap<PartKind, Source> =
            parts.into_iter().map(|(kind, staged)| (kind, Source::Received(staged))).collect();
        let mut warnings = Vec::new();
        let mut golden_from = None;
        if let Some(base) = base {
            for (kind, part) in base.manifest.parts.iter().filter(|(kind, _)| kind.carries_over()) {
                if !sources.contains_key(kind) {
                    sources.insert(*kind, Source::Stored(*part));
                }
            }
            let new_artifact = matches!(sources.get(&PartKind::Artifact), Some(Source::Received(_)));
            if new_artifact && matches!(sources.get(&PartKind::Golden), Some(Source::Stored(_))) {
                golden_from = Some(base.number);
                warnings.push(format!("golden rows were taken over from version {}", base.number));
            }
        }
        match sources.get(&PartKind::Artifact) {
            None => {
                return Err(Error::new(
                    Code::UploadEmpty,
                    format!(
                        "model {model} has no version yet, so the push needs the model itself (part \"model\")"
                    ),
                ));
            }
            Some(source) if source.part().size == 0 => {
                return Err(Error::new(Code::UploadEmpty, "the model file is empty"));
            }
            Some(_) => {}
        }
        // An empty golden, contract or provenance part takes the part away.
        sources.retain(|kind, source| source.part().size > 0 || *kind == PartKind::Manifest);
        if let Some(bytes) = self.read_part(&sources, PartKind::Provenance)? {
            check_provenance(&bytes)?;
        }
        if sources.contains_key(&PartKind::Signature) {
            warnings
                .push("the signature is stored; signatures are not verified by this release yet".to_owned());
        }
        let described = sources.iter().map(|(kind, source)| (*kind, source.part())).collect();
        let engine = match (sources.get(&PartKind::Artifact), base) {
            (Some(Source::Stored(_)), Some(base)) => base.manifest.engine,
            (Some(Source::Received(staged)), _) => EngineKind::of(staged.head()),
            _ => EngineKind::Onnx,
        };
        Ok(Bundle { manifest: Manifest::new(engine, described), sources, golden_from, warnings })
    }

    fn read_part(&self, sources: &BTreeMap<PartKind, Source>, kind: PartKind) -> Result<Option<Vec<u8>>> {
        match sources.get(&kind) {
            None => Ok(None),
            Some(Source::Received(staged)) => Ok(Some(self.store.read_staged(staged)?)),
            Some(Source::Stored(part)) => Ok(Some(self.store.read_blob(*part)?)),
        }
    }

    fn prepare_bundle(&self, model: &ModelName, bundle: &Bundle) -> Result<(Prepared, Settings)> {
        let part = |kind| self.read_part(&bundle.sources, kind);
        let (settings, golden) = self.read_settings(part(PartKind::Manifest)?, part(PartKind::Golden)?)?;
        let candidate = Candidate {
            model,
            artifact: part(PartKind::Artifact)?.unwrap_or_default(),
            contract: part(PartKind::Contract)?,
            settings: &settings,
            golden: &golden,
            metrics: Some(self.metrics.model(model.as_str())),
            degraded: Some(self.notify_degraded(model)),
        };
        let mut prepared = super::prepare::prepare(&self.engines, candidate, &self.limits)?;
        match (&self.request_log, &prepared.log_plan) {
            (Some(log), Some(plan)) => log.check(plan)?,
            (None, Some(_)) => prepared
                .warnings
                .push("[request_log] has no effect: the server was started without --request-log".to_owned()),
            (_, None) => {}
        }
        Ok((prepared, settings))
    }

    fn read_settings(
        &self,
        manifest: Option<Vec<u8>>,
        golden: Option<Vec<u8>>,
    ) -> Result<(Settings, Vec<GoldenRow>)> {
        let settings = Settings::parse(&manifest.unwrap_or_default())?;
        let golden = parse_golden(&golden.unwrap_or_default(), self.limits.golden_rows)?;
        Ok((settings, golden))
    }

    /// Loads a stored version, with the same checks as when it was pushed.
    pub(super) fn prepare_stored(&self, model: &ModelName, record: &VersionRecord) -> Result<Version> {
        let read = |kind| record.manifest.part(kind).map(|part| self.store.read_blob(part)).transpose();
        let (settings, golden) = self.read_settings(read(PartKind::Manifest)?, read(PartKind::Golden)?)?;
        let candidate = Candidate {
            model,
            artifact: read(PartKind::Artifact)?.unwrap_or_default(),
            contract: read(PartKind::Contract)?,
            settings: &settings,
            golden: &golden,
            metrics: Some(self.metrics.model(model.as_str())),
            degraded: Some(self.notify_degraded(model)),
        };
        let prepared = super::prepare::prepare(&self.engines, candidate, &self.limits)?;
        Ok(self.version(model, record, settings, prepared))
    }

    /// Two names can make the same package; whoever has its service keeps it.
    fn taken_warning(&self, model: &ModelName, contract: Option<&Contract>) -> Option<String> {
        let snapshot = self.board.load();
        let taken = contract?.methods.iter().find_map(|method| {
            let route = snapshot.route(&method.path)?;
            (route.served.model != *model).then(|| (method.path.clone(), route.served.model.clone()))
        });
        taken.map(|(path, other)| {
            format!("{path} is served by model {other} already; push a contract of your own")
        })
    }

    /// What of a new contract breaks clients of the one being served, as far as that is a promise.
    fn breaking(&self, model: &ModelName, new: Option<&Contract>) -> Vec<Breaking> {
        let Some(served) = self.board.load().get(model.as_str()).cloned() else { return Vec::new() };
        let Ok(active) = served.active() else { return Vec::new() };
        match (&active.contract, new) {
            (Some(old), Some(new)) if old.origin == Origin::Pushed => old.breaking(new),
            (Some(old), None) if old.origin == Origin::Pushed => old.schema.breaking(None),
            _ => Vec::new(),
        }
    }

    fn version(
        &self,
        model: &ModelName,
        record: &VersionRecord,
        settings: Settings,
        prepared: Prepared,
    ) -> Version {
        let identity = Identity::new(model.clone(), record.number, record.digest);
        let metrics =
            (self.metrics.model(model.as_str()), self.metrics.answers(model.as_str(), &identity.number_text));
        self.metrics.loaded().inc();
        let log = self.request_log(&identity, prepared.log_plan.clone());
        let size = Entry::artifact_size(record);
        Version::new(identity, settings, metrics, size, log, prepared, self.reaper.clone())
    }

    /// The version's request log, if there is one. A stored version that cannot be logged is served all the same: a start
    /// or a roll-back must not fail for the log's sake.
    fn request_log(&self, identity: &Identity, plan: Option<Arc<Plan>>) -> Option<ModelLog> {
        let (log, plan) = (self.request_log.as_ref()?, plan?);
        match log.check(&plan) {
            Ok(()) => Some(log.of(&identity.model, &identity.number_text, &identity.digest_text, plan)),
            Err(error) => {
                let (model, version) = (&identity.model, &identity.number_text);
                let code = error.code().id();
                tracing::error!(%model, %version, code, "requests are not logged: {}", error.text());
                None
            }
        }
    }

    /// Makes blobs of received parts and writes the version's record.
    fn store_bundle(
        &self,
        model: &ModelName,
        manifest: Manifest,
        sources: BTreeMap<PartKind, Source>,
    ) -> Result<VersionRecord> {
        self.keep(sources)?;
        let number = self.store.last_number(model)?.next();
        let digest = manifest.digest();
        let record =
            VersionRecord { number, digest, manifest, created_at: now(), state: VersionState::Stored };
        self.store.add_version(model, &record)?;
        Ok(record)
    }

    /// Makes blobs of the parts that were received.
    fn keep(&self, sources: BTreeMap<PartKind, Source>) -> Result<()> {
        for source in sources.into_values() {
            if let Source::Received(staged) = source {
                self.store.keep(staged)?;
            }
        }
        Ok(())
    }

    /// Collects garbage; a failure only costs disk.
    pub(super) fn collect(&self, model: &ModelName) {
        let keep = Keep {
            versions: self.limits.kept_versions,
            artifact_bytes: self.limits.kept_bytes,
            pointers: self.limits.kept_pointers,
        };
        let records = self.with_catalog(|catalog| catalog.get(model).map(|entry| entry.records.clone()));
        let records = records.unwrap_or_default();
        let retired = self.store.retire_old(model, &records, &self.pinned(model), keep);
        let swept = retired.and_then(|retired| {
            if retired.is_empty() {
                return Ok(0);
            }
            self.with_catalog(|catalog| {
                let entry = catalog.entry(model.clone()).or_default();
                for record in &mut entry.records {
                    if let Some(changed) = retired.iter().find(|changed| changed.number == record.number) {
                        record.clone_from(changed);
                    }
                }
            });
            self.sweep()
        });
        if let Err(error) = swept {
            tracing::warn!(%model, "cannot collect garbage: {error}");
        }
    }

    /// Removes the blobs that no stored version names.
    pub(super) fn sweep(&self) -> std::result::Result<usize, crate::store::StoreError> {
        let records: Vec<VersionRecord> = self.with_catalog(|catalog| {
            catalog.values().flat_map(|entry| entry.records.iter().cloned()).collect()
        });
        self.store.sweep(&records)
    }

    fn set_preparing(&self, model: &ModelName, known: &Entry, preparing: bool) {
        // A model's first push must not show an empty model before it succeeds.
        if known.exists() {
            self.with_catalog(|catalog| catalog.entry(model.clone()).or_default().preparing = preparing);
        }
    }

    fn timed<T>(&self, step: &str, work: impl FnOnce() -> T) -> T {
        let start = Instant::now();
        let value = work();
        self.metrics.publish_step(step, start.elapsed());
        value
    }
}

/// The rules that are broken, if that is allowed.
///
/// # Errors
/// `CONTRACT_BREAKING` with every change.
fn allowed(breaking: Vec<Breaking>, on_breaking: OnBreaking) -> Result<Vec<String>> {
    if breaking.is_empty() {
        return Ok(Vec::new());
    }
    if on_breaking == OnBreaking::Refuse {
        let hint = "if that is meant, push with --allow-breaking (on_breaking=allow)";
        return Err(contract::breaking_error(&breaking).with_hint(hint));
    }
    let mut rules: Vec<String> = breaking.into_iter().map(|change| change.rule.to_owned()).collect();
    rules.sort();
    rules.dedup();
    Ok(rules)
}

fn broken_warning(rules: &[String]) -> Option<String> {
    (!rules.is_empty()).then(|| {
        format!("the contract breaks clients of the one before, as was allowed: {}", rules.join(", "))
    })
}

/// `If-Match`: the caller means the generation that it has seen. Of a model that was removed it has seen none, which is 0.
pub(super) fn check_expected(model: &ModelName, expected: Option<u64>, entry: &Entry) -> Result<()> {
    match expected {
        Some(0) if !entry.exists() => Ok(()),
        Some(expected) if expected != entry.generation => Err(stale(model, expected, entry.generation)),
        _ => Ok(()),
    }
}

/// Checks the digest that a client announced for a part.
///
/// # Errors
/// `DIGEST_MISMATCH`.
pub fn check_announced(announced: Option<Digest>, staged: &Staged) -> Result<()> {
    match announced {
        Some(announced) if announced != staged.digest() => Err(Error::new(
            Code::DigestMismatch,
            "the uploaded bytes do not have the announced digest; they were changed on the way, or the digest is of \
             another file",
        )),
        _ => Ok(()),
    }
}
