//! `fn evaluate`: the candidate against the model being served, on the same holdout.
//!
//! Both run in workers of this process, with the engines of the runner and the settings of their bundles: the comparison costs the
//! runner nothing, both are timed alike, and a model that crashes or hangs is refused instead of ending the function.

mod answers;
mod holdout;
mod metric;
mod rule;
mod subject;

use std::sync::Arc;

use baton_runner::engine::Cancellation;
use serde::Deserialize;
use serde_json::{Value, json};

use super::bundle::{Bundle, Candidate, MAX_PART, reference};
use super::cost::Meter;
use super::runner::{Pushed, Runner};
use super::validate::is_other_holdout;
use super::{Call, Context, Failure};
use crate::event::Event;
use crate::store::{Digest, Reference};
use holdout::Holdout;
use rule::{Reason, Rule};
use subject::{Compared, Subject, UNFIT};

/// The variable with the rule, TOML.
pub(super) const RULE: &str = "BATON_RULE";
/// Bytes of a holdout.
const MAX_HOLDOUT: u64 = 256 * 1024 * 1024;
/// Deployments that are looked through for the one that is served.
const MAX_DEPLOYED: u64 = 100;

/// From `training.finished` or `artifact.pushed` to `model.evaluated`; other events are none of its business.
pub(super) fn evaluate(context: Arc<Context>, event: Event) -> Call {
    Box::pin(async move {
        match event.short_kind() {
            Some("training.finished" | "artifact.pushed") => run(&context, &event).await,
            _ => Ok(None),
        }
    })
}

/// Is this a rule?
///
/// # Errors
/// What is wrong with it.
pub(super) fn check_rule(text: &str) -> Result<(), String> {
    Rule::parse(text).map(|_| ())
}

/// The model being served.
struct Active {
    version: String,
    digest: Option<String>,
    subject: Subject,
}

/// Ends the comparison when the call is dropped: a caller that has left wants no answer.
struct EndsWithCall(Cancellation);

impl Drop for EndsWithCall {
    fn drop(&mut self) {
        self.0.cancel();
    }
}

async fn run(context: &Context, event: &Event) -> Result<Option<Event>, Failure> {
    let meter = Meter::of_process();
    let candidate = Candidate::of(event, &context.store).await?;
    let rule = Rule::from_environment().map_err(Failure::Never)?;
    let (file, artifact) = candidate
        .bundle
        .artifact()
        .ok_or_else(|| Failure::Never("the bundle has neither model.onnx nor model.so".into()))?;
    let bundle = &candidate.bundle;
    let bytes = context.store.read(artifact, MAX_PART).await?;
    let runner = Runner::of(context)?;
    let (active, generation) = active(&runner, &candidate.model).await?;
    let holdout_reference = match reference(&candidate.data, "holdout")? {
        Some(given) => Some(given),
        None => bundle.holdout.clone(),
    };
    let label = rule.label.clone().or_else(|| bundle.label.clone());

    let mut reasons = Vec::new();
    let mut notes = Vec::new();
    let (mut measured, mut active_measured) = (None, None);
    let same = active.as_ref().is_some_and(|active| Digest::of(&active.subject.artifact) == artifact.digest);
    if same {
        reasons.push(Reason::new("UNCHANGED", "this very model is being served already"));
    } else if let (Some(label), Some(features)) = (&label, &bundle.features)
        && features.contains(label)
    {
        reasons.push(Reason::new(
            UNFIT,
            format!("the features of the bundle have the label among them, {label:?}"),
        ));
    } else if let Some(found) = &holdout_reference {
        notes.extend(other_holdout(context, &candidate, found).await);
        let table = context.store.read(found, MAX_HOLDOUT).await?;
        let settings = match bundle.parts.get("baton.toml") {
            Some(reference) => Some(context.store.read(reference, MAX_PART).await?),
            None => None,
        };
        let ours = Subject {
            artifact: bytes,
            settings,
            features: bundle.features.clone(),
            classes: bundle.classes.clone(),
        };
        let theirs = match &active {
            Some(active) => {
                let known = deployed(context, &candidate.model, active.digest.as_deref()).await?;
                let (features, classes) = known.map_or((None, None), |known| (known.features, known.classes));
                let features = features.or(bundle.features.clone());
                Some(Subject { features, classes, ..active.subject.clone() })
            }
            None => None,
        };
        let rule = rule.clone();
        let waiting = EndsWithCall(Cancellation::default());
        let cancelled = waiting.0.clone();
        let compare = move || {
            let holdout = |features: Option<&[String]>| {
                Holdout::read(&table, label.as_deref(), features, rule.max_rows)
            };
            subject::compare(&ours, theirs.as_ref(), holdout, &rule, &cancelled)
        };
        #[allow(
            clippy::disallowed_methods,
            reason = "a function computes beside its one thread for connections"
        )]
        let joined = tokio::task::spawn_blocking(compare)
            .await
            .map_err(|error| Failure::Later(format!("the comparison ended: {error}")))?;
        let Compared { ours, theirs, left_out, reasons: more } = joined?;
        reasons.extend(more);
        if active.is_some() {
            notes.extend(left_out.map(|text| format!("the active model is left out: {text}")));
        }
        (measured, active_measured) = (Some(ours), theirs);
    } else if rule.holdout_required {
        reasons.push(Reason::new(
            "NO_HOLDOUT",
            "neither the event nor the bundle names a holdout, so nothing can be compared",
        ));
    }
    if reasons.is_empty() {
        reasons.extend(dry_run(context, &runner, &candidate, generation).await?);
    }
    let verdict = if reasons.is_empty() { "accept" } else { "reject" };
    tracing::info!(model = %candidate.model, file, verdict, "evaluated");
    let data = json!({
        "model": candidate.model,
        "run": event.run(),
        "bundle": candidate.reference,
        "dataset_digest": bundle.dataset_digest,
        "holdout": holdout_reference,
        "candidate": measured.map_or(json!({}), |measured| measured.json()),
        "active": active_measured.map(|measured| measured.json()),
        "active_version": active.as_ref().map(|active| active.version.clone()),
        "active_digest": active.as_ref().and_then(|active| active.digest.clone()),
        "generation": generation,
        "rule": rule.text(),
        "verdict": verdict,
        "reasons": reasons,
        "notes": notes,
        "round": candidate.data.get("round").and_then(Value::as_u64).unwrap_or(0),
        "cost": meter.cost(),
    });
    Ok(Some(event.reply(&context.name, "model.evaluated", &candidate.model, data)))
}

/// The version being served, and the generation to deploy against.
async fn active(runner: &Runner, model: &str) -> Result<(Option<Active>, u64), Failure> {
    let Some(found) = runner.model(model).await? else { return Ok((None, 0)) };
    let generation = found.generation;
    let Some(version) = found.active else { return Ok((None, generation)) };
    let artifact = runner.part(model, &version, "artifact").await?;
    let parts = found.versions.iter().find(|known| known.version == version).map(|known| &known.parts);
    let settings = match parts.is_some_and(|parts| parts.contains_key("manifest")) {
        true => Some(runner.part(model, &version, "manifest").await?),
        false => None,
    };
    let subject = Subject { artifact, settings, features: None, classes: None };
    Ok((Some(Active { version, digest: found.digest, subject }), generation))
}

/// The bundle that a served model was deployed from, if the store has it.
async fn deployed(context: &Context, model: &str, digest: Option<&str>) -> Result<Option<Bundle>, Failure> {
    let deployed: Vec<Value> = context.store.log("active", model, MAX_DEPLOYED).await?;
    let entry = deployed.into_iter().rev().find(|entry| entry["digest"].as_str() == digest);
    let bundle = entry.and_then(|entry| Reference::deserialize(&entry["bundle"]).ok());
    match bundle {
        Some(bundle) => Bundle::read(&context.store, &bundle).await.map(Some),
        None => Ok(None),
    }
}

/// Says that the holdout is another one than `validate` set aside, as far as that is known: the trainer names the holdout, and could
/// name one that it has seen.
async fn other_holdout(context: &Context, candidate: &Candidate, given: &Reference) -> Option<String> {
    let (dataset, digest) = (candidate.bundle.dataset.as_ref()?, candidate.bundle.dataset_digest.as_ref()?);
    let is_other = is_other_holdout(&context.store, dataset, digest, &given.digest).await.ok()?;
    is_other.then(|| {
        format!("the holdout is not the one that the log of the dataset {dataset} names for this version")
    })
}

/// What the runner itself would refuse: a contract that breaks clients, golden rows that fail, a model that does not load.
async fn dry_run(
    context: &Context,
    runner: &Runner,
    candidate: &Candidate,
    generation: u64,
) -> Result<Option<Reason>, Failure> {
    let parts = candidate.parts(&context.store).await?;
    match runner.push(&candidate.model, &parts, generation, true).await? {
        Pushed::Served(_) => Ok(None),
        // Somebody deployed meanwhile: the comparison was with another one.
        Pushed::Refused(problem) if problem.code == "GENERATION_STALE" => Err(Failure::Later(problem.error)),
        Pushed::Refused(problem) => Ok(Some(Reason::new(&problem.code, &problem.error))),
    }
}
