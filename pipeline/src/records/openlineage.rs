//! Runs as OpenLineage run events, for catalogues that speak it.
//!
//! Specification 2-0-2 (<https://openlineage.io/spec/2-0-2/OpenLineage.json>). An attempt at a stage of a run is a run there, of
//! the job with the stage's name, and a child of the whole run: each begins with START and ends at most once, with COMPLETE or
//! FAIL. Ids follow from the events, so exporting twice says the same twice. Our records stay what they are: this is a view too.

use std::collections::{BTreeMap, BTreeSet};

use rusqlite::Connection;
use serde_json::{Map, Value, json};
use sha2::{Digest, Sha256};

use super::{RecordsError, seen};
use crate::event::TYPE_PREFIX;

/// Of one run.
const MAX_EVENTS: usize = 1000;
/// Documents that one export is of.
const MAX_RUNS: usize = 1000;

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

/// A telling of how an attempt began or ended.
struct Told<'a> {
    time: jiff::Timestamp,
    event: &'a Value,
}

/// What was told of a stage of a model.
#[derive(Default)]
struct Stage<'a> {
    starts: Vec<Told<'a>>,
    ends: Vec<(Told<'a>, &'static str)>,
}

/// The run events of these events of one run (CloudEvents as JSON), in the order of time. What is not of the pipeline, or has
/// no time, is left out.
pub fn export(run: &str, events: &[Value]) -> Vec<Value> {
    attempts(run, events, |_, _| true)
}

/// The same of those attempts at stages that are asked for, by their model and bundle; the bundle of one that made none is empty.
fn attempts(run: &str, events: &[Value], is_asked: impl Fn(&str, &str) -> bool) -> Vec<Value> {
    let mut stages: BTreeMap<(&str, &str), Stage> = BTreeMap::new();
    for event in events {
        let Some((kind, time)) = kind(event).zip(event["time"].as_str().and_then(|time| time.parse().ok()))
        else {
            continue;
        };
        let told = Told { time, event };
        if kind == "training.started" {
            stages.entry(("train", model(event))).or_default().starts.push(told);
        } else if let Some((_, stage, end)) = ENDS.iter().find(|(name, _, _)| *name == kind) {
            // The shared part of a run has no model.
            let of = if *stage == "validate" { "" } else { model(event) };
            stages.entry((stage, of)).or_default().ends.push((told, end));
        }
    }
    let data = Data::of(events);
    let mut exported: Vec<(jiff::Timestamp, Value)> = Vec::new();
    for ((stage, of), Stage { mut starts, mut ends }) in stages {
        starts.sort_by_key(|told| (told.time, told.event["id"].as_str()));
        ends.sort_by_key(|(told, _)| (told.time, told.event["id"].as_str()));
        for attempt in 0..starts.len().max(ends.len()) {
            let (start, end) = (starts.get(attempt), ends.get(attempt));
            let Some(first) = start.or(end.map(|(told, _)| told)) else { continue };
            let bundle = end.map_or("", |(told, _)| seen::bundle_of(told.event));
            if !of.is_empty() && !is_asked(of, bundle) {
                continue;
            }
            let began = match (start, end) {
                // The clocks of those who told need not agree.
                (Some(start), Some((end, _))) => start.time.min(end.time),
                (Some(start), None) => start.time,
                // Nobody said when it began; its own wall time does.
                (None, _) => before(first),
            };
            let text = |name: &str| first.event[name].as_str().unwrap_or_default();
            let one = Attempt { run, stage, of, id: id(&[run, of, stage, text("source"), text("id")]) };
            exported.push((began, one.event(&data, first.event, "START", began)));
            if let Some((end, state)) = end {
                exported.push((end.time, one.event(&data, end.event, state, end.time)));
            }
        }
    }
    // Stable: what has the same time stays START before COMPLETE.
    exported.sort_by_key(|(time, _)| *time);
    exported.into_iter().map(|(_, event)| event).collect()
}

fn before(end: &Told<'_>) -> jiff::Timestamp {
    let wall = end.event["data"]["cost"]["wall_s"].as_f64().unwrap_or(0.0).clamp(0.0, 1e9);
    let start = jiff::SignedDuration::try_from_secs_f64(wall).ok();
    start.and_then(|wall| end.time.checked_sub(wall).ok()).unwrap_or(end.time)
}

/// The run events of all runs that made or used what [`super::lineage::find`] finds by this name, of the attempts
/// that did.
///
/// # Errors
/// As there; [`RecordsError::Unknown`] too for what more runs know than one export is of.
pub fn of(connection: &Connection, subject: &str) -> Result<Vec<Value>, RecordsError> {
    let (_, rows) = super::lineage::rows(connection, subject, MAX_RUNS + 1)?;
    if rows.len() > MAX_RUNS {
        return Err(RecordsError::Unknown(format!(
            "more than {MAX_RUNS} runs know {subject}, and one export is of no more; export run by run \
             (baton history --runs --csv --columns run)"
        )));
    }
    let mut parts = connection.prepare_cached("SELECT run, model, bundle FROM run WHERE rowid = ?1")?;
    let mut runs: BTreeMap<String, BTreeSet<(String, String)>> = BTreeMap::new();
    for row in rows {
        let (run, part) = parts.query_row([row], |row| Ok((row.get(0)?, (row.get(1)?, row.get(2)?))))?;
        runs.entry(run).or_default().insert(part);
    }
    let mut exported = Vec::new();
    for (run, asked) in runs {
        let (documents, events) = super::run(connection, &run, MAX_EVENTS)?;
        // A training that made no bundle is of all attempts at its model, as its cost is.
        let stages = attempts(&run, &events, |of, made| {
            asked.iter().any(|(model, bundle)| model == of && (made.is_empty() || made == bundle))
        });
        exported.extend(around(&run, &documents, stages));
    }
    Ok(exported)
}

/// The whole run as the parent of its stages: it has ended when each of its models has.
fn around(run: &str, documents: &[Value], stages: Vec<Value>) -> Vec<Value> {
    let time = |value: &Value| value.as_str().and_then(|time| time.parse::<jiff::Timestamp>().ok());
    let all = |name: &str| documents.iter().map(|document| time(&document[name])).collect::<Option<Vec<_>>>();
    let times = || stages.iter().filter_map(|event| time(&event["eventTime"]));
    let begun = documents.iter().filter_map(|document| time(&document["started"])).chain(times()).min();
    let Some(begun) = begun else { return stages };
    let whole = |state: &str, time: jiff::Timestamp| {
        envelope(time, state, &id(&[run]), "pipeline", Map::from_iter([engine()]), [Vec::new(), Vec::new()])
    };
    let ended = all("finished").and_then(|finished| finished.into_iter().chain(times()).max());
    let mut exported = vec![whole("START", begun)];
    exported.extend(stages);
    if let Some(ended) = ended {
        let is_served =
            |document: &Value| ["deployed", "rolledback"].map(Value::from).contains(&document["state"]);
        exported.push(whole(if documents.iter().any(is_served) { "COMPLETE" } else { "FAIL" }, ended));
    }
    exported
}

fn kind(event: &Value) -> Option<&str> {
    event["type"].as_str()?.strip_prefix(TYPE_PREFIX)?.strip_suffix(".v1")
}

fn is_of_dataset(event: &Value) -> bool {
    kind(event).is_some_and(|kind| kind.starts_with("dataset."))
}

fn model(event: &Value) -> &str {
    event["data"]["model"].as_str().or(event["subject"].as_str()).unwrap_or_default()
}

/// What one event of a run says of the run's data, which others only use.
struct Data<'a> {
    name: Option<&'a str>,
    training: &'a Value,
}

impl<'a> Data<'a> {
    fn of(events: &'a [Value]) -> Self {
        let validated = events.iter().rfind(|event| kind(event) == Some("dataset.validated"));
        let name = validated.into_iter().chain(events).find_map(|event| {
            let subject = event["subject"].as_str().filter(|_| is_of_dataset(event));
            event["data"]["dataset"].as_str().or(subject)
        });
        Self { name, training: validated.map_or(&Value::Null, |event| &event["data"]["training"]["digest"]) }
    }

    /// A part that validation made of it.
    fn part(&self, name: &str, digest: &Value) -> Option<Value> {
        thing("datasets", Some(&format!("{}/{name}", self.name?)), digest)
    }
}

/// A run in the sense of OpenLineage.
struct Attempt<'a> {
    run: &'a str,
    stage: &'a str,
    /// The model; trainings of several models in one run are runs of their own.
    of: &'a str,
    id: String,
}

impl Attempt<'_> {
    fn event(&self, of_run: &Data<'_>, event: &Value, state: &str, time: jiff::Timestamp) -> Value {
        let Self { run, stage, of, .. } = *self;
        let data = &event["data"];
        let parent = json!({
            "_producer": PRODUCER,
            "_schemaURL": format!("{FACETS}/1-2-0/ParentRunFacet.json#/$defs/ParentRunFacet"),
            "run": { "runId": id(&[run]) },
            "job": { "namespace": NAMESPACE, "name": "pipeline" },
        });
        let mut facets = Map::from_iter([("parent".to_owned(), parent), engine()]);
        if state != "START" {
            facets.insert("baton_run".to_owned(), own_facet(run, data));
        }
        if state == "FAIL" {
            facets.insert("errorMessage".to_owned(), error_facet(data));
        }
        let (mut inputs, mut outputs) = (Vec::new(), Vec::new());
        match stage {
            "validate" => {
                inputs.extend(thing("datasets", of_run.name, &data["digest"]));
                if state == "COMPLETE" {
                    for part in ["training", "holdout"] {
                        outputs.extend(of_run.part(part, &data[part]["digest"]));
                    }
                }
            }
            "train" => {
                inputs.extend(match of_run.training {
                    // Trained without a validation: on the data themselves.
                    Value::Null => thing("datasets", of_run.name, &data["dataset_digest"]),
                    training => of_run.part("training", training),
                });
                if state == "COMPLETE" {
                    outputs.extend(thing("bundles", Some(of), &data["bundle"]["digest"]));
                }
            }
            _ => {
                inputs.extend(thing("bundles", Some(of), &data["bundle"]["digest"]));
                if stage == "evaluate" && data["holdout"]["digest"].is_string() {
                    inputs.extend(of_run.part("holdout", &data["holdout"]["digest"]));
                } else if stage != "evaluate" && state == "COMPLETE" {
                    outputs.extend(thing("models", Some(of), &data["digest"]));
                }
            }
        }
        let name = if of.is_empty() { stage.to_owned() } else { format!("{stage}.{of}") };
        envelope(time, state, &self.id, &name, facets, [inputs, outputs])
    }
}

fn engine() -> (String, Value) {
    let facet = json!({
        "_producer": PRODUCER,
        "_schemaURL": format!("{FACETS}/1-1-1/ProcessingEngineRunFacet.json#/$defs/ProcessingEngineRunFacet"),
        "name": "baton",
        "version": env!("CARGO_PKG_VERSION"),
    });
    ("processing_engine".to_owned(), facet)
}

fn own_facet(run: &str, data: &Value) -> Value {
    const TAKEN: &[&str] = &[
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
    ];
    let known =
        |name: &&str| Some(((*name).to_owned(), data.get(name).filter(|value| !value.is_null())?.clone()));
    let mut own = Value::Object(TAKEN.iter().filter_map(known).collect());
    own["run"] = run.into();
    own["_producer"] = PRODUCER.into();
    own["_schemaURL"] = "https://openlineage.io/spec/2-0-2/OpenLineage.json#/$defs/RunFacet".into();
    own
}

fn error_facet(data: &Value) -> Value {
    let reasons = data["reasons"].as_array().into_iter().flatten();
    let texts: Vec<&str> = reasons.filter_map(|reason| reason["text"].as_str()).collect();
    let message = data["error"].as_str().map_or_else(|| texts.join("; "), str::to_owned);
    json!({
        "_producer": PRODUCER,
        "_schemaURL": format!("{FACETS}/1-0-1/ErrorMessageRunFacet.json#/$defs/ErrorMessageRunFacet"),
        "message": message,
        "programmingLanguage": "none",
    })
}

fn envelope(
    time: jiff::Timestamp,
    state: &str,
    id: &str,
    job: &str,
    facets: Map<String, Value>,
    [inputs, outputs]: [Vec<Value>; 2],
) -> Value {
    json!({
        "eventTime": time.to_string(),
        "eventType": state,
        "producer": PRODUCER,
        "schemaURL": SCHEMA,
        "run": { "runId": id, "facets": facets },
        "job": { "namespace": NAMESPACE, "name": job, "facets": { "jobType": {
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
    use crate::records::tests::{digest, event, records, trained_again, whole_run};

    fn exported(events: &[crate::event::Event]) -> Vec<Value> {
        export("r1", &events.iter().map(|event| json!(event)).collect::<Vec<_>>())
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
        let training = &events[1]["outputs"][0];
        assert_eq!(training["name"], "datasets/digits/training");
        assert_eq!(&events[3]["inputs"][0], training, "what the validation made was trained on");
        assert_eq!(&events[5]["inputs"][1], &events[1]["outputs"][1], "and compared on");
        let bundle = &events[3]["outputs"][0];
        assert_eq!(bundle, &events[7]["inputs"][0], "what the training made is what was deployed");
        assert_eq!(exported(&whole_run("0123456789abcdef", "iris", 0.9, 0)), events, "twice is the same");
    }

    #[test]
    fn an_attempt_begins_before_it_ends_and_ends_once() {
        let run = whole_run("r1", "iris", 0.9, 0);
        let failed = event("lost", "training.failed", "iris", "r1", -60, json!({ "reason": "lost" }));
        let events = exported(&[run[2].clone(), failed, run[3].clone()]);
        let told: Vec<&str> = events.iter().map(|event| event["eventType"].as_str().unwrap()).collect();
        assert_eq!(told, ["START", "FAIL", "START", "COMPLETE"]);
        let ids: Vec<&Value> = events.iter().map(|event| &event["run"]["runId"]).collect();
        assert_eq!((ids[0], ids[2]), (ids[1], ids[3]));
        assert_ne!(ids[0], ids[2]);
    }

    #[test]
    fn an_export_is_of_the_models_asked_for_within_the_whole_run() {
        let mut events = whole_run("r1", "iris", 0.8, 0);
        events.extend(whole_run("r1", "wine", 0.6, 20).into_iter().skip(2));
        let told = |records: &Connection, subject: &str| -> Vec<String> {
            let events = of(records, subject).unwrap();
            let text = |event: &Value, name: &str| event[name].as_str().unwrap().to_owned();
            events.iter().map(|event| text(&event["job"], "name") + " " + &text(event, "eventType")).collect()
        };
        let all = told(&records(&events), "wine@4");
        assert_eq!(all.first().unwrap(), "pipeline START");
        assert_eq!(all.last().unwrap(), "pipeline COMPLETE");
        assert_eq!(all.len(), 10, "{all:?}");
        assert!(!all.iter().any(|name| name.contains("iris")), "{all:?}");
        assert_eq!(told(&records(&events), "r1").len(), 16);
        let begun = told(&records(&events[..8]), "r1");
        assert!(!begun.contains(&"pipeline COMPLETE".to_owned()), "{begun:?}");
    }

    #[test]
    fn an_export_is_of_the_attempts_asked_for() {
        let mut events = whole_run("r1", "iris", 0.8, 0);
        events.extend(trained_again(&events, 100));
        let records = records(&events);
        let of = |subject: &str| of(&records, subject).unwrap();
        for (subject, bundle, other) in
            [("iris@4", "bundle r1 iris", "new bundle"), ("iris@5", "new bundle", "bundle r1 iris")]
        {
            let told = of(subject);
            assert_eq!(told.len(), 10, "{subject}: {told:?}");
            let told = json!(told).to_string();
            assert!(told.contains(&digest(bundle)) && !told.contains(&digest(other)), "{subject}");
        }
        assert_eq!(of("r1").len(), 16);
    }

    #[test]
    fn an_export_is_whole_or_refused() {
        let events = |count: i64| -> Vec<crate::event::Event> {
            (0..count)
                .flat_map(|run| whole_run(&format!("r{run}"), "iris", 0.9, run).into_iter().skip(3).take(1))
                .collect()
        };
        let code = crate::records::tests::digest("code");
        assert_eq!(of(&records(&events(300)), &code).unwrap().len(), 300 * 3);
        let error = of(&records(&events(1001)), &code).expect_err("too many").to_string();
        assert!(error.contains("more than 1000"), "{error}");
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
