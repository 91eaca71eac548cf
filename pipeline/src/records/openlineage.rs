//! Runs as OpenLineage run events, for catalogues that speak it.
//!
//! Specification 2-0-2 (<https://openlineage.io/spec/2-0-2/OpenLineage.json>). A stage of a run is a run there, of the job
//! with the stage's name, and a child of the whole run: each stage begins with START and ends with COMPLETE or FAIL. Ids
//! follow from the run's name, so exporting twice says the same twice. Our records stay what they are: this is a view too.

use std::collections::BTreeSet;

use rusqlite::Connection;
use serde_json::{Map, Value, json};
use sha2::{Digest, Sha256};

use super::RecordsError;
use crate::event::TYPE_PREFIX;

/// Of one run.
const MAX_EVENTS: usize = 1000;

const SCHEMA: &str = "https://openlineage.io/spec/2-0-2/OpenLineage.json#/$defs/RunEvent";
const FACETS: &str = "https://openlineage.io/spec/facets";
const PRODUCER: &str = concat!("urn:baton:", env!("CARGO_PKG_VERSION"));
const NAMESPACE: &str = "baton";

/// The stage that an event ends, how, and what it says is the model's (or the data's).
const ENDS: &[(&str, &str, &str)] = &[
    ("dataset.validated", "validate", "COMPLETE"),
    ("dataset.rejected", "validate", "FAIL"),
    ("training.finished", "train", "COMPLETE"),
    ("training.failed", "train", "FAIL"),
    ("model.evaluated", "evaluate", "COMPLETE"),
    ("model.deployed", "deploy", "COMPLETE"),
    ("model.rejected", "deploy", "FAIL"),
    ("model.rolledback", "rollback", "COMPLETE"),
];

/// The run events of these events of one run (CloudEvents as JSON), in the order of time. What is not of the pipeline, or has
/// no time, is left out.
pub fn export(run: &str, events: &[Value]) -> Vec<Value> {
    let mut exported: Vec<(jiff::Timestamp, Value)> = Vec::new();
    for event in events {
        let Some((kind, time)) = kind(event).zip(event["time"].as_str().and_then(|time| time.parse().ok()))
        else {
            continue;
        };
        if kind == "training.started" {
            exported.push((time, run_event(run, event, "train", "START", time)));
        }
        let Some((_, stage, end)) = ENDS.iter().find(|(name, _, _)| *name == kind) else { continue };
        let has_start = *stage == "train"
            && events
                .iter()
                .any(|other| self::kind(other) == Some("training.started") && model(other) == model(event));
        if !has_start {
            // Nobody said when it began; its own wall time does.
            let wall = event["data"]["cost"]["wall_s"].as_f64().unwrap_or(0.0).clamp(0.0, 1e9);
            let start = jiff::SignedDuration::try_from_secs_f64(wall)
                .ok()
                .and_then(|wall| time.checked_sub(wall).ok())
                .unwrap_or(time);
            exported.push((start, run_event(run, event, stage, "START", start)));
        }
        exported.push((time, run_event(run, event, stage, end, time)));
    }
    // Stable: what has the same time stays START before COMPLETE.
    exported.sort_by_key(|(time, _)| *time);
    exported.into_iter().map(|(_, event)| event).collect()
}

/// The run events of all runs that made or used what [`super::lineage::find`] finds by this name.
///
/// # Errors
/// As there.
pub fn of(connection: &Connection, subject: &str) -> Result<Vec<Value>, RecordsError> {
    let found = super::lineage::find(connection, subject)?;
    let runs: BTreeSet<&str> = found.runs.iter().filter_map(|run| run["run"].as_str()).collect();
    let mut exported = Vec::new();
    for run in runs {
        let (_, events) = super::run(connection, run, MAX_EVENTS)?;
        exported.extend(export(run, &events));
    }
    Ok(exported)
}

fn kind(event: &Value) -> Option<&str> {
    event["type"].as_str()?.strip_prefix(TYPE_PREFIX)?.strip_suffix(".v1")
}

fn model(event: &Value) -> &str {
    event["data"]["model"].as_str().or(event["subject"].as_str()).unwrap_or_default()
}

fn run_event(run: &str, event: &Value, stage: &str, state: &str, time: jiff::Timestamp) -> Value {
    let data = &event["data"];
    // Trainings of several models in one run are runs of their own.
    let of = if stage == "validate" { "" } else { model(event) };
    let mut facets = Map::from_iter([
        (
            "parent".to_owned(),
            json!({
                "_producer": PRODUCER,
                "_schemaURL": format!("{FACETS}/1-2-0/ParentRunFacet.json#/$defs/ParentRunFacet"),
                "run": { "runId": id(&[run]) },
                "job": { "namespace": NAMESPACE, "name": "pipeline" },
            }),
        ),
        (
            "processing_engine".to_owned(),
            json!({
                "_producer": PRODUCER,
                "_schemaURL": format!("{FACETS}/1-1-1/ProcessingEngineRunFacet.json#/$defs/ProcessingEngineRunFacet"),
                "name": "baton",
                "version": env!("CARGO_PKG_VERSION"),
            }),
        ),
    ]);
    let (mut inputs, mut outputs) = (Vec::new(), Vec::new());
    if state != "START" {
        let own: Map<String, Value> = [
            "cost",
            "parameters",
            "metrics",
            "candidate",
            "active",
            "verdict",
            "code",
            "environment",
            "who",
            "report",
        ]
        .into_iter()
        .filter_map(|name| Some((name.to_owned(), data.get(name).filter(|value| !value.is_null())?.clone())))
        .collect();
        let mut own = Value::Object(own);
        own["run"] = run.into();
        own["_producer"] = PRODUCER.into();
        own["_schemaURL"] = "https://openlineage.io/spec/2-0-2/OpenLineage.json#/$defs/RunFacet".into();
        facets.insert("baton_run".to_owned(), own);
    }
    if state == "FAIL" {
        let reasons = data["reasons"].as_array().into_iter().flatten();
        let texts: Vec<&str> = reasons.filter_map(|reason| reason["text"].as_str()).collect();
        let message = data["error"].as_str().map_or_else(|| texts.join("; "), str::to_owned);
        facets.insert(
            "errorMessage".to_owned(),
            json!({
                "_producer": PRODUCER,
                "_schemaURL": format!("{FACETS}/1-0-1/ErrorMessageRunFacet.json#/$defs/ErrorMessageRunFacet"),
                "message": message,
                "programmingLanguage": "none",
            }),
        );
    }
    let dataset = data["dataset"].as_str().or(event["subject"].as_str().filter(|_| stage == "validate"));
    let digest = if stage == "validate" { &data["digest"] } else { &data["dataset_digest"] };
    match stage {
        "validate" => {
            inputs.extend(thing("datasets", dataset, digest));
            if state == "COMPLETE" {
                outputs.extend(thing(
                    "datasets",
                    dataset.map(|name| format!("{name}/training")).as_deref(),
                    &data["training"]["digest"],
                ));
                outputs.extend(thing(
                    "datasets",
                    dataset.map(|name| format!("{name}/holdout")).as_deref(),
                    &data["holdout"]["digest"],
                ));
            }
        }
        "train" => {
            inputs.extend(thing("datasets", dataset, digest));
            if state == "COMPLETE" {
                outputs.extend(thing("bundles", Some(of), &data["bundle"]["digest"]));
            }
        }
        "evaluate" => inputs.extend(thing("bundles", Some(of), &data["bundle"]["digest"])),
        _ => {
            inputs.extend(thing("bundles", Some(of), &data["bundle"]["digest"]));
            if state == "COMPLETE" {
                outputs.extend(thing("models", Some(of), &data["digest"]));
            }
        }
    }
    let name = if of.is_empty() { stage.to_owned() } else { format!("{stage}.{of}") };
    json!({
        "eventTime": time.to_string(),
        "eventType": state,
        "producer": PRODUCER,
        "schemaURL": SCHEMA,
        "run": { "runId": id(&[run, of, stage]), "facets": facets },
        "job": { "namespace": NAMESPACE, "name": name, "facets": { "jobType": {
            "_producer": PRODUCER,
            "_schemaURL": format!("{FACETS}/2-0-4/JobTypeJobFacet.json#/$defs/JobTypeJobFacet"),
            "processingType": "BATCH", "integration": "BATON", "jobType": "TASK",
        } } },
        "inputs": inputs,
        "outputs": outputs,
    })
}

/// A dataset of OpenLineage, with the digest as its version.
fn thing(folder: &str, name: Option<&str>, digest: &Value) -> Option<Value> {
    let mut facets = Map::new();
    if let Some(digest) = digest.as_str() {
        facets.insert("version".to_owned(), json!({
            "_producer": PRODUCER,
            "_schemaURL": format!("{FACETS}/1-0-1/DatasetVersionDatasetFacet.json#/$defs/DatasetVersionDatasetFacet"),
            "datasetVersion": digest,
        }));
    }
    let name = name.filter(|name| !name.is_empty())?;
    Some(json!({ "namespace": NAMESPACE, "name": format!("{folder}/{name}"), "facets": facets }))
}

/// A UUID (version 8: of the application's own making) that follows from a name.
fn id(parts: &[&str]) -> String {
    let mut hash = Sha256::new();
    for part in parts {
        hash.update(part.as_bytes());
        hash.update([0]);
    }
    let mut bytes = [0; 16];
    bytes.copy_from_slice(&hash.finalize()[..16]);
    uuid::Builder::from_custom_bytes(bytes).into_uuid().to_string()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::records::tests::{event, whole_run};

    fn exported(events: &[crate::event::Event]) -> Vec<Value> {
        export("r1", &events.iter().map(crate::event::Event::to_json).collect::<Vec<_>>())
    }

    #[test]
    fn every_stage_begins_and_ends_under_one_id() {
        let events = exported(&whole_run("0123456789abcdef", "iris", 0.9, 0));
        let text = |event: &Value| {
            format!("{} {}", event["job"]["name"].as_str().unwrap(), event["eventType"].as_str().unwrap())
        };
        let told: Vec<String> = events.iter().map(text).collect();
        let expected = [
            "validate START",
            "validate COMPLETE",
            "train.iris START",
            "train.iris COMPLETE",
            "evaluate.iris START",
            "evaluate.iris COMPLETE",
            "deploy.iris START",
            "deploy.iris COMPLETE",
        ];
        assert_eq!(told, expected);
        for pair in events.chunks(2) {
            assert_eq!(pair[0]["run"]["runId"], pair[1]["run"]["runId"]);
            let parent = &pair[0]["run"]["facets"]["parent"]["run"]["runId"];
            assert_eq!(parent, &events[0]["run"]["facets"]["parent"]["run"]["runId"]);
        }
        let bundle = &events[3]["outputs"][0];
        assert_eq!(bundle, &events[7]["inputs"][0], "what the training made is what was deployed");
        assert_eq!(exported(&whole_run("0123456789abcdef", "iris", 0.9, 0)), events, "twice is the same");
    }

    #[test]
    fn a_failure_says_why() {
        let data = json!({ "model": "iris", "reason": "memory", "error": "killed at 2 GiB" });
        let events = exported(&[event("1", "training.failed", "iris", "r1", 0, data)]);
        assert_eq!(events[1]["eventType"], "FAIL");
        assert_eq!(events[1]["run"]["facets"]["errorMessage"]["message"], "killed at 2 GiB");
    }

    #[test]
    fn malformed_events_are_left_out_or_exported_with_what_they_have() {
        let odd = [
            json!(null),
            json!(3),
            json!({ "type": "dev.baton.model.deployed.v1" }),
            json!({ "type": "dev.baton.training.finished.v1", "time": "2026-01-01T00:00:00Z", "data": [1],
                "pipelinerun": 4 }),
            json!({ "type": "dev.baton.training.finished.v1", "time": "-009999-01-02T01:59:59Z",
                "data": { "cost": { "wall_s": 1e308 } } }),
        ];
        assert_eq!(export("r1", &odd).len(), 4);
    }
}
