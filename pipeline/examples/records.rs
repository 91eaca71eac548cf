//! Measures the records: how fast events are added, how long questions take, how large the database is.
//!
//! `cargo run --release -p baton-pipeline --example records -- [RUNS] [FILE]`; docs/history.md has what it printed. It compares
//! with the alternative that was rejected, conditions in SQL over the same documents.
#![allow(
    clippy::print_stdout,
    clippy::unwrap_used,
    reason = "a program that prints figures, and may stop where it fails"
)]

use std::time::Instant;

use baton_pipeline::event::Event;
use baton_pipeline::records::query::{Query, search};
use baton_pipeline::records::{create_tables, insert, lineage, open, rebuild};
use baton_pipeline::store::Digest;
use rusqlite::Connection;
use serde_json::{Value, json};

/// Events that one transaction adds, as the engine groups them.
const GROUP: usize = 128;
/// How often a question is asked; the median counts.
const REPEATS: usize = 11;

const QUESTIONS: &[(&str, &str, usize)] = &[
    ("", "", 100),
    ("accuracy >= 0.9 and dataset = \"digits3\"", "", 100),
    ("accuracy >= 0.999999", "", 100),
    ("cost.cpu_s < 10 or not (state = \"deployed\")", "", 100),
    ("state in (\"failed\", \"rejected\")", "", 100),
    ("who ~ \"ADA\" and started >= \"2026-11-20\"", "-accuracy", 100),
    ("started > -7d", "-accuracy,cost.cpu_s", 100),
    ("", "-accuracy", 10),
    ("", "cost.cpu_s", 10_000),
    ("parameters.depth = 7 and environment.packages.numpy = \"2.0.1\"", "started", 100),
    ("reasons ~ \"drift\"", "", 100),
    ("digest exists and verdict is not null and metrics.loss < 0.01", "", 100),
    ("nothing_at_all = 1", "", 100),
];

fn main() {
    let mut arguments = std::env::args().skip(1);
    let runs: usize = arguments.next().map_or(10_000, |text| text.parse().unwrap());
    let folder = tempfile::tempdir().unwrap();
    let file = arguments.next().map_or_else(|| folder.path().join("pipeline.sqlite"), Into::into);

    let events: Vec<Event> = (0..runs).flat_map(run).collect();
    let mut connection = Connection::open(&file).unwrap();
    connection.execute_batch("PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL;").unwrap();
    create_tables(&connection).unwrap();
    let start = Instant::now();
    for group in events.chunks(GROUP) {
        let transaction = connection.transaction().unwrap();
        for event in group {
            insert(&transaction, event, None).unwrap();
        }
        transaction.commit().unwrap();
    }
    let seconds = start.elapsed().as_secs_f64();
    println!(
        "{runs} runs, {} events: {:.0} events/s in groups of {GROUP}",
        events.len(),
        events.len() as f64 / seconds
    );

    connection.execute_batch("PRAGMA wal_checkpoint(TRUNCATE)").unwrap();
    let size = |sql: &str| connection.query_row(sql, [], |row| row.get::<_, i64>(0)).unwrap() as f64;
    println!(
        "database {:.1} MB; of it events {:.1} MB, documents {:.1} MB",
        std::fs::metadata(&file).unwrap().len() as f64 / 1e6,
        size("SELECT sum(length(body)) FROM event") / 1e6,
        size("SELECT sum(length(document)) FROM run") / 1e6
    );

    let start = Instant::now();
    rebuild(&connection).unwrap();
    println!("all views made anew: {:.1} s", start.elapsed().as_secs_f64());

    let records = open(&file).unwrap();
    println!("\n| where | sort | limit | found | ms |\n| --- | --- | --- | --- | --- |");
    for &(filter, sort, limit) in QUESTIONS {
        let query = Query { filter: filter.into(), sort: sort.into(), limit, ..Query::default() };
        let (milliseconds, found) = median(|| search(&records, &query).unwrap().runs.len());
        println!("| `{filter}` | `{sort}` | {limit} | {found} | {milliseconds:.1} |");
    }
    let sql = "SELECT document FROM run WHERE document IS NOT NULL
        AND coalesce(json_extract(document, '$.candidate.accuracy'), json_extract(document, '$.metrics.accuracy')) >= ?1
        AND json_extract(document, '$.dataset.name') = ?2 ORDER BY started DESC";
    let mut in_sql = records.prepare(sql).unwrap();
    let (milliseconds, found) = median(|| {
        let rows = in_sql.query_map((0.9, "digits3"), |row| row.get::<_, String>(0)).unwrap();
        rows.map(Result::unwrap).count()
    });
    let (filter, sort, _) = QUESTIONS[1];
    let query = Query { filter: filter.into(), sort: sort.into(), limit: 10_000, ..Query::default() };
    let (ours, same) = median(|| search(&records, &query).unwrap().runs.len());
    println!(
        "\nthe second one without a limit: {ours:.1} ms ({same} found); in SQL with json_extract: {milliseconds:.1} ms ({found} found)"
    );

    println!("\n| lineage of | runs | ms |\n| --- | --- | --- |");
    let served = Digest::of(b"served 78").to_string();
    let data = Digest::of(b"data 78").to_string();
    let code = Digest::of(b"code").to_string();
    for subject in [&served, &data, &code, &"model3".to_owned()] {
        let (milliseconds, found) = median(|| lineage::find(&records, subject).unwrap().runs.len());
        println!("| `{}` | {found} | {milliseconds:.1} |", subject.get(..19).unwrap_or(subject));
    }
}

/// Milliseconds, and what was found.
fn median(mut ask: impl FnMut() -> usize) -> (f64, usize) {
    let mut found = 0;
    let mut times: Vec<f64> = (0..REPEATS)
        .map(|_| {
            let start = Instant::now();
            found = ask();
            start.elapsed().as_secs_f64() * 1e3
        })
        .collect();
    times.sort_by(f64::total_cmp);
    (times[REPEATS / 2], found)
}

/// The events of a run, eight for a whole one; every seventh is rejected at once, every eleventh fails in training.
fn run(number: usize) -> Vec<Event> {
    let (dataset, model) = (format!("digits{}", number % 20), format!("model{}", number % 20));
    let begin = Event::new("/baton/cli", &number.to_string(), "dataset.updated", &dataset, "", Value::Null);
    let run = Event { extensions: std::collections::BTreeMap::new(), ..begin }.run();
    // A run every ten minutes, the last one now.
    let ends = jiff::Timestamp::now().as_second() - 600 * (10_000 - number as i64);
    let digest = |name: &str| Digest::of(format!("{name} {number}").as_bytes()).to_string();
    let reference = |name: &str| json!({ "digest": digest(name), "size": 12_345 });
    let fraction = (number * 7919 % 1000) as f64 / 1000.0;
    let accuracy = 0.8 + fraction / 5.0;
    let cost = |cpu: f64| json!({ "cpu_s": cpu, "wall_s": cpu * 1.1, "max_rss_mb": 50.0 + fraction * 100.0 });
    let packages: serde_json::Map<String, Value> = (0..12)
        .map(|index| (format!("package{index}"), json!("1.2.3")))
        .chain([("numpy".into(), json!("2.0.1"))])
        .collect();
    let training = json!({ "run": run, "model": model, "dataset": dataset, "dataset_digest": digest("data"),
        "parameters": { "depth": number % 13, "rate": fraction, "kind": "tree" }, "who": format!("ada{}", number % 9),
        "code": { "digest": Digest::of(b"code").to_string(), "commit": "0123456789abcdef" },
        "environment": { "digest": Digest::of(b"environment").to_string(), "python": "3.11.7", "packages": packages } });
    let with = |mut base: Value, more: Value| {
        for (name, value) in more.as_object().unwrap() {
            base[name] = value.clone();
        }
        base
    };
    let data = json!({ "dataset": dataset, "digest": digest("data"), "file": "digits.csv", "size": 123_456 });
    let tested = json!({ "model": model, "run": run, "bundle": reference("bundle"), "dataset_digest": digest("data"),
        "holdout": reference("holdout"), "candidate": { "accuracy": accuracy, "f1": accuracy }, "active":
        { "accuracy": 0.85 }, "rule": "accuracy not below active", "verdict": "accept", "reasons": [], "cost": cost(0.3),
        "active_version": "3", "active_digest": digest("served before"), "generation": number });
    let mut all = vec![
        ("dataset.updated", &dataset, data.clone()),
        (
            "dataset.validated",
            &dataset,
            with(
                data.clone(),
                json!({ "rows": 1797, "report": reference("report"), "flagged": 4,
            "training": reference("training"), "holdout": reference("holdout"), "drift": fraction, "cost": cost(0.4),
            "policy": Digest::of(b"policy").to_string() }),
            ),
        ),
        ("training.started", &model, training.clone()),
        ("training.heartbeat", &model, json!({ "run": run })),
        (
            "training.finished",
            &model,
            with(
                training.clone(),
                json!({ "bundle": reference("bundle"), "report":
            reference("report"), "holdout": reference("holdout"), "metrics": { "accuracy": accuracy, "loss": fraction },
            "cost": cost(5.0 + 20.0 * fraction), "reused": false }),
            ),
        ),
        ("model.evaluated", &model, tested),
        (
            "model.deployed",
            &model,
            json!({ "model": model, "run": run, "bundle": reference("bundle"), "version":
            number.to_string(), "generation": number + 1, "digest": digest("served"), "previous_digest":
            digest("served before"), "cost": cost(0.1) }),
        ),
        ("model.watched", &model, json!({ "model": model })),
    ];
    if number.is_multiple_of(7) {
        all.truncate(1);
        all.push((
            "dataset.rejected",
            &dataset,
            with(
                data,
                json!({ "report": reference("report"), "cost": cost(0.4),
            "reasons": [{ "code": "DRIFT", "text": "column pixel_3 drifts (PSI 0.4)" }] }),
            ),
        ));
    } else if number.is_multiple_of(11) {
        all.truncate(3);
        all.push((
            "training.failed",
            &model,
            with(training, json!({ "reason": "memory", "error": "killed", "cost": cost(9.0) })),
        ));
    }
    let events = all.into_iter().enumerate().map(|(stage, (kind, subject, data))| {
        let id = if stage == 0 { number.to_string() } else { format!("{number}-{stage}") };
        let mut event = Event::new("/baton/cli", &id, kind, subject, &run, data);
        event.time = jiff::Timestamp::from_second(ends + stage as i64 * 3).ok().map(|time| time.to_string());
        event
    });
    events.collect()
}
