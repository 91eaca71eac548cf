//! The view on the events: what a run's document says, and that it says the same however the events came.

use proptest::prelude::*;
use rusqlite::Connection;
use serde_json::{Value, json};

use super::{create_tables, insert, rebuild};
use crate::event::Event;

/// An event of the pipeline: `id` within the one source of these tests, seconds after an hour of 2026.
pub(super) fn event(id: &str, kind: &str, subject: &str, run: &str, second: i64, data: Value) -> Event {
    let mut event = Event::new("/test", id, kind, subject, run, data);
    let time = jiff::Timestamp::from_second(1_795_000_000 + second).unwrap();
    event.time = Some(time.to_string());
    event
}

pub(super) fn digest(text: &str) -> String {
    crate::store::Digest::of(text.as_bytes()).to_string()
}

fn reference(text: &str) -> Value {
    json!({ "digest": digest(text), "size": text.len() })
}

/// All events of a run that ends with its model served.
pub(super) fn whole_run(run: &str, model: &str, accuracy: f64, start: i64) -> Vec<Event> {
    let id = |stage: &str| format!("{run}-{model}-{stage}");
    let (data, bundle) = (digest(&format!("data {run}")), reference(&format!("bundle {run} {model}")));
    let trained = json!({ "run": run, "model": model, "dataset": "digits", "dataset_digest": data,
        "parameters": { "depth": 3 }, "code": { "digest": digest("code"), "commit": "abc" }, "who": "ada",
        "environment": { "digest": digest("environment"), "python": "3.11.7", "packages": { "numpy": "2.0" } } });
    let mut finished = trained.clone();
    finished["bundle"] = bundle.clone();
    finished["metrics"] = json!({ "accuracy": accuracy, "loss": 0.25 });
    finished["cost"] = json!({ "cpu_s": 10.1, "wall_s": 5.0, "max_rss_mb": 117.0 });
    vec![
        event(
            &format!("{run}-updated"),
            "dataset.updated",
            "digits",
            run,
            start,
            json!({ "dataset": "digits",
            "digest": data, "size": 10, "file": "digits.csv" }),
        ),
        event(
            &format!("{run}-validated"),
            "dataset.validated",
            "digits",
            run,
            start + 1,
            json!({
            "dataset": "digits", "digest": data, "file": "digits.csv", "rows": 1797, "report": reference("report"),
            "training": reference("training"), "holdout": reference("holdout"), "flagged": 3, "drift": 0.02,
            "cost": { "cpu_s": 0.2, "wall_s": 0.3, "max_rss_mb": 20.5 } }),
        ),
        event(&id("started"), "training.started", model, run, start + 2, trained),
        event(&id("finished"), "training.finished", model, run, start + 7, finished),
        event(
            &id("evaluated"),
            "model.evaluated",
            model,
            run,
            start + 8,
            json!({ "model": model, "run": run,
            "bundle": bundle, "candidate": { "accuracy": accuracy - 0.01 }, "active": { "accuracy": 0.8 },
            "verdict": "accept", "reasons": [], "rule": "accuracy", "holdout": reference("holdout"), "active_digest": digest("served before"),
            "cost": { "cpu_s": 0.1, "wall_s": 0.1, "max_rss_mb": 60.0 } }),
        ),
        event(
            &id("deployed"),
            "model.deployed",
            model,
            run,
            start + 9,
            json!({ "model": model, "run": run,
            "bundle": bundle, "version": "4", "generation": 7, "digest": digest(&format!("served {run} {model}")),
            "previous_digest": digest("served before"), "cost": { "cpu_s": 0.1, "wall_s": 0.6, "max_rss_mb": 9.0 } }),
        ),
    ]
}

/// An event of [`whole_run`] that was said again: with another id, later, and with other data in these fields.
fn again(event: &Event, id: &str, seconds: i64, changes: Value) -> Event {
    let mut again = event.clone();
    again.id = id.to_owned();
    let time: Option<jiff::Timestamp> = event.time.as_ref().map(|time| time.parse().unwrap());
    again.time = time.map(|time| (time + jiff::SignedDuration::from_secs(seconds)).to_string());
    let mut data = event.object();
    data.extend(changes.as_object().unwrap().clone());
    again.data = crate::event::Data::Json(Value::Object(data).into());
    again
}

/// What follows when the code of a whole run has changed: another training on the same data, in the same run.
pub(super) fn trained_again(run: &[Event], seconds: i64) -> Vec<Event> {
    let (code, bundle) = (json!({ "digest": digest("new code") }), reference("new bundle"));
    let changes = [
        json!({ "code": code, "parameters": { "depth": 9 } }),
        json!({ "code": code, "parameters": { "depth": 9 }, "bundle": bundle, "metrics": { "accuracy": 0.5 } }),
        json!({ "bundle": bundle, "candidate": { "accuracy": 0.49 } }),
        json!({ "bundle": bundle, "version": "5", "generation": 8, "digest": digest("new served"),
            "previous_digest": run[5].object()["digest"] }),
    ];
    let said = run[2..].iter().zip(changes).enumerate();
    said.map(|(index, (event, change))| again(event, &format!("again-{index}"), seconds, change)).collect()
}

pub(super) fn records(events: &[Event]) -> Connection {
    let mut connection = Connection::open_in_memory().unwrap();
    create_tables(&connection).unwrap();
    let transaction = connection.transaction().unwrap();
    for event in events {
        insert(&transaction, event, None).unwrap();
    }
    transaction.commit().unwrap();
    connection
}

/// Everything that can be seen of the view.
fn seen(connection: &Connection) -> Vec<String> {
    let queries = [
        "SELECT document || coalesce(started, '-') || coalesce(dataset, '-') FROM run WHERE document IS NOT NULL ORDER BY run, model, bundle",
        "SELECT digest || run || model || bundle || role FROM link ORDER BY 1",
        "SELECT name FROM metric ORDER BY 1",
    ];
    let mut all = Vec::new();
    for query in queries {
        let mut statement = connection.prepare(query).unwrap();
        let rows = statement.query_map([], |row| row.get(0)).unwrap();
        all.extend(rows.collect::<rusqlite::Result<Vec<String>>>().unwrap());
    }
    all
}

fn documents(connection: &Connection, run: &str) -> Vec<Value> {
    super::run(connection, run, 1000).unwrap().0
}

#[test]
fn a_whole_run_is_one_document_with_all_that_is_known() {
    let records = records(&whole_run("r1", "iris", 0.97, 0));
    let [document] = &documents(&records, "r1")[..] else { panic!("one document") };
    let expected = json!({
        "run": "r1", "state": "deployed", "model": "iris", "version": "4", "generation": 7, "who": "ada",
        "metrics": { "accuracy": 0.97, "loss": 0.25 }, "verdict": "accept", "reasons": [], "rule": "accuracy",
        "parameters": { "depth": 3 }, "events": 6, "seconds": 9.0, "digest": digest("served r1 iris"),
        "bundle": reference("bundle r1 iris"), "previous_digest": digest("served before"),
        "started": "2026-11-18T11:06:40Z", "finished": "2026-11-18T11:06:49Z",
    });
    for (name, value) in expected.as_object().unwrap() {
        assert_eq!(&document[name], value, "{name}");
    }
    assert_eq!(document["dataset"]["rows"], 1797);
    assert_eq!(document["dataset"]["digest"], digest("data r1"));
    assert_eq!(document["cost"]["cpu_s"], 10.5);
    assert_eq!(document["cost"]["wall_s"], 6.0);
    assert_eq!(document["cost"]["max_rss_mb"], 117.0);
    assert_eq!(document["cost"]["stages"]["evaluate"]["max_rss_mb"], 60.0);
}

#[test]
fn the_state_is_the_furthest_stage() {
    let run = whole_run("r1", "iris", 0.97, 0);
    let states = ["updated", "validated", "training", "trained", "evaluated", "deployed"];
    for (count, state) in (1..).zip(states) {
        let records = records(&run[..count]);
        assert_eq!(documents(&records, "r1")[0]["state"], *state);
    }
    let cases: &[(&str, Value, &str, usize)] = &[
        ("dataset.rejected", json!({ "reasons": [{ "code": "EMPTY" }] }), "rejected", 1),
        ("training.failed", json!({ "reason": "lost", "error": "no answer" }), "failed", 3),
        (
            "model.rejected",
            json!({ "bundle": reference("bundle r1 iris"), "reasons": [{ "code": "GENERATION" }] }),
            "refused",
            5,
        ),
        ("model.rolledback", json!({ "version": 3, "reasons": [{ "code": "SLOW" }] }), "rolledback", 6),
    ];
    for (kind, data, state, after) in cases {
        let mut events = run[..*after].to_vec();
        events.push(event("last", kind, "iris", "r1", 100, data.clone()));
        let document = &documents(&records(&events), "r1")[0];
        assert_eq!(document["state"], *state);
        assert!(document["reasons"][0]["code"].is_string(), "{kind}: {document}");
        assert!(document["finished"].is_string(), "{kind}");
    }
}

#[test]
fn a_deployed_run_that_is_compared_again_stays_deployed() {
    let mut run = whole_run("r1", "iris", 0.97, 0);
    let bundle = reference("bundle r1 iris");
    let reasons = json!({ "bundle": bundle, "verdict": "reject", "reasons": [{ "code": "UNCHANGED" }] });
    run.push(event("again", "model.evaluated", "iris", "r1", 50, reasons.clone()));
    run.push(event("refused", "model.rejected", "iris", "r1", 51, reasons));
    let document = &documents(&records(&run), "r1")[0];
    assert_eq!((&document["state"], &document["reasons"]), (&json!("deployed"), &json!([])));
    assert_eq!(document["seconds"], 9.0);
}

/// The documents that meet a condition.
fn found(records: &Connection, filter: &str) -> Vec<Value> {
    let query = super::query::Query { filter: filter.to_owned(), limit: 100, ..Default::default() };
    let found = super::query::search(records, &query).unwrap();
    found.runs.iter().map(|run| serde_json::from_str(run.get()).unwrap()).collect()
}

#[test]
fn a_retraining_that_is_refused_is_a_row_of_its_own_and_changes_nothing_of_what_is_served() {
    let mut events = whole_run("r1", "iris", 0.97, 0);
    let mut more = trained_again(&events, 100);
    let served = documents(&records(&events), "r1").remove(0);
    let reasons = json!([{ "code": "WORSE", "text": "accuracy" }]);
    more[2] = again(&more[2], "worse", 0, json!({ "verdict": "reject", "reasons": reasons }));
    more[3] = event(
        "refused",
        "model.rejected",
        "iris",
        "r1",
        110,
        json!({ "model": "iris", "bundle": reference("new bundle"), "reasons": reasons }),
    );
    events.extend(more);
    let records = records(&events);
    let lineage = super::lineage::find(&records, &digest("served r1 iris")).unwrap();
    let [told] = &lineage.runs[..] else { panic!("one document: {:?}", lineage.runs) };
    for name in
        ["state", "version", "parameters", "code", "metrics", "candidate", "verdict", "reasons", "bundle"]
    {
        assert_eq!(told[name], served[name], "{name}");
    }
    assert_eq!(found(&records, "state = 'deployed'"), lineage.runs);
    let [refused] = &found(&records, "state = 'refused'")[..] else { panic!("one refused") };
    assert_eq!((&refused["parameters"], &refused["reasons"]), (&json!({ "depth": 9 }), &reasons));
    assert_eq!((&refused["metrics"], &refused["verdict"]), (&json!({ "accuracy": 0.5 }), &json!("reject")));
    assert_eq!((&refused["bundle"], &refused["version"]), (&reference("new bundle"), &Value::Null));
    assert_eq!(documents(&records, "r1").len(), 2);
}

#[test]
fn a_comparison_that_measured_nothing_does_not_replace_one_that_did() {
    let mut run = whole_run("r1", "iris", 0.97, 0);
    let before = documents(&records(&run), "r1").remove(0);
    let unchanged = json!({ "verdict": "reject", "candidate": {}, "active": null, "rule": "another",
        "reasons": [{ "code": "UNCHANGED" }] });
    run.push(again(&run[4], "unchanged", 100, unchanged));
    run.push(event(
        "refused",
        "model.rejected",
        "iris",
        "r1",
        120,
        json!({ "bundle": reference("bundle r1 iris"), "reasons": [{ "code": "UNCHANGED" }] }),
    ));
    let records = records(&run);
    let [document] = &documents(&records, "r1")[..] else { panic!("one document") };
    for name in ["state", "verdict", "candidate", "active", "rule", "reasons", "since"] {
        assert_eq!(document[name], before[name], "{name}");
    }
    assert_eq!(found(&records, "accuracy = 0.96").len(), 1, "what was measured on the holdout");
}

#[test]
fn a_retraining_that_fails_is_a_row_of_its_own_until_one_works() {
    let mut events = whole_run("r1", "iris", 0.97, 0);
    let started = trained_again(&events, 100).remove(0);
    let failed = json!({ "model": "iris", "reason": "memory", "error": "killed" });
    events.extend([started, event("failed", "training.failed", "iris", "r1", 105, failed)]);
    let connection = records(&events);
    let [row] = &found(&connection, "state = 'failed' and reasons ~ 'memory'")[..] else {
        panic!("one failed: {:?}", documents(&connection, "r1"))
    };
    assert_eq!((&row["run"], &row["model"]), (&json!("r1"), &json!("iris")));
    assert_eq!((&row["parameters"], &row["dataset"]["rows"]), (&json!({ "depth": 9 }), &json!(1797)));
    assert_eq!(
        (&row["bundle"], &row["verdict"], &row["version"]),
        (&Value::Null, &Value::Null, &Value::Null)
    );
    let [served] = &found(&connection, "state = 'deployed'")[..] else { panic!("one deployed") };
    assert_eq!(
        (&served["parameters"], &served["code"]["digest"]),
        (&json!({ "depth": 3 }), &json!(digest("code")))
    );
    assert_eq!((&served["reasons"], &served["version"]), (&json!([]), &json!("4")));

    // The third one works.
    events.extend(trained_again(&whole_run("r1", "iris", 0.97, 0), 200).into_iter().skip(1));
    let states: Vec<Value> =
        documents(&records(&events), "r1").iter().map(|document| document["state"].clone()).collect();
    assert_eq!(states, ["deployed", "deployed"]);
}

#[test]
fn each_version_that_a_run_made_is_a_row_of_its_own() {
    let mut events = whole_run("r1", "iris", 0.97, 0);
    events.extend(trained_again(&events, 100));
    let records = records(&events);
    for (version, depth, accuracy) in [("4", 3, 0.96), ("5", 9, 0.49)] {
        let [row] = &found(&records, &format!("version = {version}"))[..] else { panic!("{version}") };
        assert_eq!(row["parameters"]["depth"], depth);
        let subject = format!("iris@{version}");
        let lineage = super::lineage::find(&records, &subject).unwrap();
        assert_eq!(&lineage.runs, std::slice::from_ref(row));
        assert_eq!(lineage.runs[0]["candidate"]["accuracy"], accuracy);
    }
    // The later one first; the one validation is paid for in each.
    let all = found(&records, "");
    assert_eq!([&all[0]["version"], &all[1]["version"]], ["5", "4"]);
    for row in all {
        assert_eq!(row["cost"]["stages"]["validate"]["cpu_s"], 0.2);
        assert_eq!(row["cost"]["stages"]["train"]["cpu_s"], 10.1);
    }
}

#[test]
fn what_names_no_bundle_is_told_by_itself_and_of_no_attempt() {
    let mut events = whole_run("r1", "iris", 0.97, 0);
    let reasons = json!({ "reasons": [{ "code": "ODD" }], "verdict": "reject" });
    for kind in ["model.evaluated", "model.rejected"] {
        events.push(event(kind, kind, "iris", "r1", 50, reasons.clone()));
    }
    let records = records(&events);
    let [odd] = &found(&records, "state = 'refused' and reasons ~ 'odd'")[..] else { panic!("one") };
    assert_eq!(odd["bundle"], Value::Null);
    let [served] = &found(&records, "state = 'deployed'")[..] else { panic!("one") };
    assert_eq!((&served["verdict"], &served["reasons"]), (&json!("accept"), &json!([])));
}

#[test]
fn a_roll_back_is_of_the_attempt_that_was_deployed_last_before_it() {
    let mut events = whole_run("r1", "iris", 0.97, 0);
    events.extend(trained_again(&events, 100));
    // The third time the first one is deployed again.
    events.push(again(&events[5], "third", 200, json!({ "version": "6" })));
    let back =
        |id: &str, second| event(id, "model.rolledback", "iris", "r1", second, json!({ "version": 3 }));
    let check = |backs: &[Event], expected: [(&str, &str); 2]| {
        for events in [[&events[..], backs].concat(), [backs, &events[..]].concat()] {
            let records = records(&events);
            for (version, state) in expected {
                let [row] = &found(&records, &format!("version = {version}"))[..] else {
                    panic!("{version}")
                };
                assert_eq!(row["state"], state, "{version}");
            }
        }
    };
    check(&[], [("6", "deployed"), ("5", "deployed")]);
    check(&[back("1", 300)], [("6", "rolledback"), ("5", "deployed")]);
    check(&[back("1", 150)], [("6", "deployed"), ("5", "rolledback")]);
    check(&[back("1", 150), back("2", 300)], [("6", "rolledback"), ("5", "rolledback")]);
    // Of the first one as it was before: that it is deployed again counts more.
    check(&[back("1", 50)], [("6", "deployed"), ("5", "deployed")]);
}

#[test]
fn thousands_of_attempts_in_one_run_do_not_slow_each_other_down() {
    let events = (0..3000).map(|index| {
        let data =
            json!({ "model": "iris", "bundle": reference(&index.to_string()), "cost": { "cpu_s": 1.0 } });
        event(&index.to_string(), "training.finished", "iris", "r1", index, data)
    });
    let documents = documents(&records(&events.collect::<Vec<_>>()), "r1");
    assert_eq!(documents.len(), 3000);
    assert!(documents.iter().all(|document| document["events"] == 1 && document["cost"]["cpu_s"] == 1.0));
}

#[test]
fn a_training_that_answers_after_it_was_given_up_is_trained() {
    let mut run = whole_run("r1", "iris", 0.97, 0);
    run.truncate(4);
    run.insert(3, event("lost", "training.failed", "iris", "r1", 5, json!({ "reason": "lost" })));
    let document = &documents(&records(&run), "r1")[0];
    assert_eq!((&document["state"], &document["reasons"]), (&json!("trained"), &json!(null)));
}

#[test]
fn the_state_of_a_training_does_not_depend_on_clocks() {
    let run = whole_run("r1", "iris", 0.97, 0);
    let failed = |second| event("lost", "training.failed", "iris", "r1", second, json!({ "reason": "lost" }));
    for (state, end) in [("failed", failed(-60)), ("trained", run[3].clone())] {
        let mut timeless = end.clone();
        timeless.time = None;
        let mut early = end;
        early.time = Some("2026-11-18T10:00:00Z".to_owned());
        for end in [early, timeless] {
            let document = &documents(&records(&[run[2].clone(), end]), "r1")[0];
            assert_eq!(document["state"], state, "{document}");
        }
    }
}

#[test]
fn what_nobody_said_of_a_cost_is_left_out() {
    let check = |costs: &[Value], expected: Value| {
        let events = costs.iter().enumerate().map(|(index, cost)| {
            event(&index.to_string(), "training.finished", "iris", "r1", 0, json!({ "cost": cost }))
        });
        let document = &documents(&records(&events.collect::<Vec<_>>()), "r1")[0];
        assert_eq!(document["cost"]["stages"]["train"], expected, "{document}");
    };
    check(&[json!({ "cpu_s": "12.5", "wall_s": null })], json!({}));
    check(&[json!({ "wall_s": 3 })], json!({ "wall_s": 3.0 }));
    check(
        &[json!({ "wall_s": 3 }), json!({ "cpu_s": 1, "wall_s": 2 })],
        json!({ "cpu_s": 1.0, "wall_s": 5.0 }),
    );
}

#[test]
fn digests_in_lists_are_linked_and_names_below_are_no_roles() {
    let names = ["listed", "inside", "replaced"].map(digest);
    let parameters = json!({ "sources": [names[0], { "digest": names[1] }], "replaced": names[2] });
    let records =
        records(&[event("1", "training.started", "iris", "r1", 0, json!({ "parameters": parameters }))]);
    for name in names {
        let found = super::lineage::find(&records, &name).unwrap();
        assert_eq!(found.subject.roles, ["parameters".to_owned()].into());
    }
}

#[test]
fn a_run_that_trains_two_models_has_a_document_for_each() {
    let mut events = whole_run("r1", "iris", 0.97, 0);
    events.extend(whole_run("r1", "wine", 0.5, 20).into_iter().skip(2));
    let documents = documents(&records(&events), "r1");
    let names: Vec<_> = documents.iter().map(|document| document["model"].as_str().unwrap()).collect();
    assert_eq!(names, ["iris", "wine"]);
    for (document, accuracy) in documents.iter().zip([0.97, 0.5]) {
        assert_eq!(document["dataset"]["rows"], 1797, "the shared part is in both");
        assert_eq!(document["metrics"]["accuracy"], accuracy);
        assert_eq!(document["events"], 6);
    }
}

#[test]
fn a_model_that_is_trained_twice_in_a_run_shows_the_later_and_pays_for_both() {
    let mut events = whole_run("r1", "iris", 0.97, 0);
    let mut again = events[3].clone();
    again.id = "again".to_owned();
    again.time = Some("2026-11-18T11:06:48Z".to_owned());
    let mut data = again.object();
    data["metrics"] = json!({ "accuracy": 0.5 });
    again.data = crate::event::Data::Json(Value::Object(data).into());
    // Arrives first, counts last.
    events.insert(0, again);
    let document = &documents(&records(&events), "r1")[0];
    assert_eq!(document["metrics"], json!({ "accuracy": 0.5 }));
    assert_eq!(document["cost"]["stages"]["train"]["cpu_s"], 20.2);
    assert_eq!(document["state"], "deployed");
}

#[test]
fn what_cannot_be_understood_is_kept_and_harms_nothing() {
    let hostile = "'; DROP TABLE run; --\u{202e}\"\\\u{0}ß";
    let cases = [
        json!(null),
        json!([1, 2]),
        json!("text"),
        json!({ "dataset": 5, "digest": [], "file": {}, "rows": "many", "cost": "much", "metrics": 3, "model": [] }),
        json!({ "metrics": { "accuracy": "NaN", "loss": null, "f1": [1], "ok": 1e308 }, "cost": { "cpu_s": -4.0,
            "wall_s": 1e300, "max_rss_mb": "x" }, "started": "yesterday", "reasons": "because" }),
        json!({ "dataset": hostile, "model": hostile, "who": hostile, "metrics": { hostile: 1 }, "run": hostile }),
        json!({ "bundle": "sha256:00", "report": { "digest": 7 }, "code": "x", "generation": 18446744073709551615u64 }),
    ];
    let kinds = [
        "dataset.updated",
        "dataset.validated",
        "dataset.rejected",
        "training.started",
        "training.finished",
        "training.failed",
        "artifact.pushed",
        "model.evaluated",
        "model.deployed",
        "model.rejected",
        "model.rolledback",
        "unknown",
    ];
    let mut events = Vec::new();
    for (index, data) in cases.iter().enumerate() {
        for kind in kinds {
            let run = format!("r{index}");
            events.push(event(&format!("{kind}{index}"), kind, "iris", &run, index as i64, data.clone()));
        }
    }
    let mut foreign = event("foreign", "x", "iris", "r1", 0, json!({ "metrics": { "foreign": 1 } }));
    foreign.kind = "com.example.thing".to_owned();
    events.push(foreign);
    let mut timeless = event("timeless", "model.deployed", "iris", "r1", 0, json!({ "version": "1" }));
    timeless.time = None;
    events.push(timeless);
    let records = records(&events);
    let count: u32 = records.query_row("SELECT count(*) FROM event", [], |row| row.get(0)).unwrap();
    assert_eq!(count as usize, events.len());
    assert_eq!(documents(&records, "r4")[0]["metrics"], json!({ "ok": 1e308 }));
    assert_eq!(documents(&records, "r4")[0]["cost"]["cpu_s"], 0.0);
    assert_eq!(documents(&records, "r5")[0]["model"], hostile);
    assert_eq!(documents(&records, "r6")[0]["generation"], 18446744073709551615u64);
}

#[test]
fn a_database_of_an_older_program_gets_its_runs_anew() {
    let records = records(&whole_run("r1", "iris", 0.97, 0));
    let before = seen(&records);
    records.execute_batch("DROP TABLE run; UPDATE view_version SET version = 0").unwrap();
    create_tables(&records).unwrap();
    assert_eq!(seen(&records), before);
}

#[test]
fn thousands_of_events_of_one_run_do_not_slow_each_other_down() {
    let events = (0..4000).map(|index| {
        let data = json!({ "model": "iris", "metrics": { "accuracy": index }, "cost": { "cpu_s": 0.001 } });
        event(&index.to_string(), "training.finished", "iris", "r1", index, data)
    });
    let events: Vec<Event> = events.collect();
    let document = &documents(&records(&events), "r1")[0];
    assert_eq!(document["metrics"]["accuracy"], 3999);
    assert_eq!(document["cost"]["cpu_s"], 4.0);
    assert_eq!(document["events"], 4000);
    let facts: u32 =
        records(&events).query_row("SELECT length(facts) FROM run", [], |row| row.get(0)).unwrap();
    assert!(facts < 1000, "what is kept of a run does not grow with its events: {facts}");
}

/// Events of two runs, two models and three bundles as they might come, malformed ones among them; ids from 0.
fn some_events() -> impl Strategy<Value = Vec<Event>> {
    let kind = prop::sample::select(vec![
        "dataset.updated",
        "dataset.validated",
        "dataset.rejected",
        "training.started",
        "training.finished",
        "training.failed",
        "artifact.pushed",
        "model.evaluated",
        "model.deployed",
        "model.rejected",
        "model.rolledback",
        "else",
    ]);
    let value = prop_oneof![
        Just(Value::Null),
        any::<f64>().prop_map(|number| json!(number)),
        any::<u64>().prop_map(|number| json!(number)),
        "[a-c\"'\\\\ü]{0,3}".prop_map(Value::from),
        (0..4u8).prop_map(|number| reference(&number.to_string())),
        (0..4u8).prop_map(|number| json!(digest(&number.to_string()))),
        (any::<f32>(), 0.0..9e9f64).prop_map(
            |(left, right)| json!({ "cpu_s": left, "wall_s": right, "max_rss_mb": right, "accuracy": left })
        ),
    ];
    let names = prop::sample::select(vec![
        "dataset",
        "digest",
        "dataset_digest",
        "file",
        "rows",
        "report",
        "training",
        "cost",
        "model",
        "run",
        "metrics",
        "candidate",
        "active",
        "code",
        "environment",
        "parameters",
        "started",
        "bundle",
        "version",
        "generation",
        "reasons",
        "reason",
        "verdict",
        "who",
    ]);
    let data = prop::collection::btree_map(names, value, 0..8);
    let bundle = prop_oneof![2 => Just(None), 5 => (0..3u8).prop_map(Some)];
    let one = (kind, data, 0..3u8, prop::option::of("[ab]"), prop::option::of(0..5i64), bundle);
    prop::collection::vec(one, 0..20).prop_map(|all| {
        let events = all.into_iter().enumerate().map(|(index, (kind, data, run, model, second, bundle))| {
            let mut data = json!(data);
            if let Some(model) = &model {
                data["model"] = json!(model);
            }
            if let Some(bundle) = bundle {
                data["bundle"] = reference(&format!("bundle {bundle}"));
            }
            let run = format!("r{}", run / 2);
            let mut event = event(&index.to_string(), kind, "a", &run, second.unwrap_or(0), data);
            event.time = event.time.filter(|_| second.is_some());
            event
        });
        events.collect()
    })
}

proptest! {
    #[test]
    fn the_view_is_the_same_in_any_order_with_duplicates_and_made_anew(
        (events, shuffled, again) in some_events().prop_flat_map(|events| {
            let shuffled = Just(events.clone()).prop_shuffle();
            let again = prop::sample::subsequence(events.clone(), 0..=events.len());
            (Just(events), shuffled, again)
        })
    ) {
        let straight = records(&events);
        let expected = seen(&straight);
        let other = records(&[again, shuffled].concat());
        prop_assert_eq!(&seen(&other), &expected);
        rebuild(&other).unwrap();
        prop_assert_eq!(&seen(&other), &expected);
    }
}
