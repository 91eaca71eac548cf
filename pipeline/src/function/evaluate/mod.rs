//! `fn evaluate`: the candidate against the model being served, on the same holdout.
//!
//! Both run in this process (native models in a worker of it) with the engines of the runner, so the comparison costs the runner
//! nothing and both are timed alike.

mod holdout;
mod metric;
mod rule;
mod subject;

use std::sync::Arc;

use bytes::Bytes;
use serde_json::{Value, json};

use super::bundle::{Candidate, MAX_PART, reference};
use super::cost::Meter;
use super::runner::{Pushed, Runner};
use super::{Call, Context, Failure};
use crate::event::Event;
use crate::store::Digest;
use holdout::Holdout;
use rule::{Reason, Rule};
use subject::Measured;

/// Bytes of a holdout.
const MAX_HOLDOUT: u64 = 256 * 1024 * 1024;

/// From `training.finished` or `artifact.pushed` to `model.evaluated`.
pub(super) fn evaluate(context: Arc<Context>, event: Event) -> Call {
    Box::pin(async move { run(&context, &event).await })
}

/// The model being served.
struct Active {
    version: String,
    digest: Option<String>,
    artifact: Bytes,
}

async fn run(context: &Context, event: &Event) -> Result<Option<Event>, Failure> {
    let meter = Meter::of_process();
    let candidate = Candidate::of(event, &context.store).await?;
    let rule = Rule::from_environment().map_err(Failure::Never)?;
    let (file, artifact) = candidate
        .bundle
        .artifact()
        .ok_or_else(|| Failure::Never("the bundle has neither model.onnx nor model.so".into()))?;
    let bytes = context.store.get(&artifact.digest, MAX_PART).await?;
    let runner = Runner::of(context)?;
    let (active, generation) = active(&runner, &candidate.model).await?;
    let holdout_reference = match reference(&candidate.data, "holdout")? {
        Some(given) => Some(given),
        None => candidate.bundle.holdout.clone(),
    };

    let mut reasons = Vec::new();
    let (mut measured, mut active_measured) = (None, None);
    let same = active.as_ref().is_some_and(|active| Digest::of(&active.artifact) == artifact.digest);
    if same {
        reasons.push(Reason::new("UNCHANGED", "this very model is being served already"));
    } else if let Some(found) = &holdout_reference {
        let table = context.store.get(&found.digest, MAX_HOLDOUT).await?;
        let label = rule.label.clone().or_else(|| candidate.bundle.label.clone());
        let features = candidate.bundle.features.clone();
        let (rule, active) = (rule.clone(), active.as_ref().map(|active| active.artifact.clone()));
        let measure = move || -> Result<(Measured, Option<Measured>, Vec<Reason>), Failure> {
            let holdout = Holdout::read(&table, label.as_deref(), features.as_deref(), rule.max_rows)?;
            subject::measure_both(&bytes, active.as_deref(), &holdout, &rule)
        };
        #[allow(
            clippy::disallowed_methods,
            reason = "a function computes beside its one thread for connections"
        )]
        let joined = tokio::task::spawn_blocking(measure)
            .await
            .map_err(|error| Failure::Later(format!("the comparison ended: {error}")))?;
        let (ours, theirs, more) = joined?;
        reasons.extend(more);
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
        "dataset_digest": candidate.bundle.dataset_digest,
        "holdout": holdout_reference,
        "candidate": measured.map_or(json!({}), |measured| measured.json()),
        "active": active_measured.map(|measured| measured.json()),
        "active_version": active.as_ref().map(|active| active.version.clone()),
        "active_digest": active.as_ref().and_then(|active| active.digest.clone()),
        "generation": generation,
        "rule": rule.text(),
        "verdict": verdict,
        "reasons": reasons,
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
    Ok((Some(Active { version, digest: found.digest, artifact }), generation))
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
        // Somebody deployed meanwhile; the deployment finds that out too.
        Pushed::Refused(problem) if problem.code == "GENERATION_STALE" => {
            Err(Failure::Later(format!("{} is being changed by somebody else", candidate.model)))
        }
        Pushed::Refused(problem) => Ok(Some(Reason::new(&problem.code, &problem.error))),
    }
}
