//! `fn deploy`: pushes an accepted candidate to the runner, if the model is still what it was compared with.

use std::collections::BTreeMap;
use std::sync::Arc;

use baton_runner::admin::wire::Change;
use bytes::Bytes;
use serde_json::{Map, Value, json};

use super::bundle::Candidate;
use super::cost::Meter;
use super::runner::{Pushed, Runner};
use super::{Call, Context, Failure};
use crate::event::Event;

/// How often a candidate is compared again because another one was faster.
const MAX_ROUNDS: u64 = 3;

/// From `model.evaluated` to `model.deployed`, `model.rejected`, or back to `artifact.pushed` if another version was deployed in
/// between; other events are none of its business.
pub(super) fn deploy(context: Arc<Context>, event: Event) -> Call {
    Box::pin(async move {
        match event.short_kind() {
            Some("model.evaluated") => run(&context, &event).await,
            _ => Ok(None),
        }
    })
}

async fn run(context: &Context, event: &Event) -> Result<Option<Event>, Failure> {
    let meter = Meter::of_process();
    let candidate = Candidate::of(event, &context.store).await?;
    let rejected = |reasons: Value| {
        let data = json!({
            "model": candidate.model, "run": event.run(), "bundle": candidate.reference, "reasons": reasons,
            "cost": meter.cost(),
        });
        Ok(Some(event.reply(&context.name, "model.rejected", &candidate.model, data)))
    };
    match candidate.data.get("verdict").and_then(Value::as_str) {
        Some("accept") => {}
        Some("reject") => return rejected(candidate.data.get("reasons").cloned().unwrap_or(json!([]))),
        _ => return Err(Failure::Never("data.verdict is neither \"accept\" nor \"reject\"".into())),
    }
    let generation = candidate.data.get("generation").and_then(Value::as_u64).ok_or_else(|| {
        Failure::Never("data.generation is missing: what the candidate was compared with".into())
    })?;
    let runner = Runner::of(context)?;
    let mark = json!({ "run": event.run(), "bundle": candidate.reference.digest });
    let parts = parts(context, &candidate, &mark).await?;
    let change = match runner.push(&candidate.model, &parts, generation, false).await? {
        Pushed::Served(change) => change,
        Pushed::Refused(problem) if problem.code == "GENERATION_STALE" => {
            // Either an earlier delivery of this very event did it, or somebody else deployed.
            match served_already(&runner, &candidate.model, &mark).await? {
                Some(change) => change,
                None => return compare_again(context, event, &candidate, rejected),
            }
        }
        Pushed::Refused(problem) => {
            return rejected(json!([{ "code": problem.code, "text": problem.error }]));
        }
    };
    let previous = candidate.data.get("active_digest").cloned().unwrap_or(Value::Null);
    let data = json!({
        "model": candidate.model, "run": event.run(), "bundle": candidate.reference, "version": change.version,
        "generation": change.generation, "digest": change.digest, "previous_digest": previous, "cost": meter.cost(),
    });
    record(context, &runner, &candidate.model, &data).await?;
    Ok(Some(event.reply(&context.name, "model.deployed", &candidate.model, data)))
}

/// The parts for the runner; the provenance says which run and bundle they come from.
async fn parts(
    context: &Context,
    candidate: &Candidate,
    mark: &Value,
) -> Result<BTreeMap<&'static str, Bytes>, Failure> {
    let mut parts = candidate.parts(&context.store).await?;
    let mut provenance: Map<String, Value> = match parts.get("provenance") {
        Some(bytes) => serde_json::from_slice(bytes)
            .map_err(|error| Failure::Never(format!("provenance.json is no JSON object: {error}")))?,
        None => Map::new(),
    };
    provenance.insert("pipeline".into(), mark.clone());
    parts.insert("provenance", Value::Object(provenance).to_string().into());
    Ok(parts)
}

/// What is being served, if it came from this run and bundle.
async fn served_already(runner: &Runner, model: &str, mark: &Value) -> Result<Option<Change>, Failure> {
    let Some(found) = runner.model(model).await? else { return Ok(None) };
    let provenance = runner.provenance(model).await?;
    if found.active.is_none() || provenance.as_ref().map(|record| &record["pipeline"]) != Some(mark) {
        return Ok(None);
    }
    Ok(Some(Change {
        model: found.model,
        version: found.active,
        digest: found.digest,
        generation: found.generation,
        state: "active".into(),
        unchanged: true,
        warnings: Vec::new(),
    }))
}

/// Another version was deployed since: the candidate has to beat that one.
fn compare_again(
    context: &Context,
    event: &Event,
    candidate: &Candidate,
    rejected: impl Fn(Value) -> Result<Option<Event>, Failure>,
) -> Result<Option<Event>, Failure> {
    let round = candidate.data.get("round").and_then(Value::as_u64).unwrap_or(0).saturating_add(1);
    if round > MAX_ROUNDS {
        let text = format!("other versions were deployed {round} times while this one was compared");
        return rejected(json!([{ "code": "GENERATION_STALE", "text": text }]));
    }
    let data = json!({
        "model": candidate.model, "bundle": candidate.reference, "holdout": candidate.data.get("holdout"),
        "round": round,
    });
    Ok(Some(event.reply(&context.name, "artifact.pushed", &candidate.model, data)))
}

/// Appends to the log of what was deployed, unless an earlier delivery did, or a later version was faster.
async fn record(context: &Context, runner: &Runner, model: &str, data: &Value) -> Result<(), Failure> {
    loop {
        let last: Option<(u64, Value)> = context.store.last("active", model).await?;
        let number = match &last {
            Some((_, entry)) if ["generation", "digest", "bundle"].iter().all(|of| entry[of] == data[of]) => {
                return Ok(());
            }
            // Or the runner is a new one, which counts from 1 again.
            Some((_, entry)) if entry["generation"].as_u64() >= data["generation"].as_u64() => {
                let served = runner.model(model).await?.and_then(|found| found.digest);
                if served.as_deref() != data["digest"].as_str() {
                    return Ok(());
                }
                last.as_ref().map_or(0, |(number, _)| *number)
            }
            Some((number, _)) => *number,
            None => 0,
        };
        if context.store.append("active", model, number, data).await? {
            return Ok(());
        }
    }
}
