//! `baton history` and `baton lineage`: the real binary on records that the pipeline's own code wrote, from the folder and over HTTP.

use std::path::Path;
use std::process::{Command, Output};

use baton_pipeline::event::Event;
use baton_pipeline::records::{api, create_tables, insert};
use baton_pipeline::store::Digest;
use baton_tests::runner::binary;
use baton_tests::{Runner, onnx};
use rusqlite::Connection;
use serde_json::{Value, json};

fn digest(text: &str) -> String {
    Digest::of(text.as_bytes()).to_string()
}

/// The events of a run of `model`, a few seconds each, `start` seconds after an hour of November 2026.
fn run(name: &str, model: &str, accuracy: f64, start: i64) -> Vec<Event> {
    let (data, bundle) =
        (digest(&format!("data {name}")), json!({ "digest": digest(&format!("bundle {name}")), "size": 5 }));
    let reference = json!({ "digest": digest("report"), "size": 9 });
    let training = json!({ "model": model, "run": name, "dataset": "digits", "dataset_digest": data, "who": "ada",
        "parameters": { "depth": 3 }, "code": { "digest": digest("code"), "commit": "abcdef" }, "bundle": bundle,
        "environment": { "digest": digest("environment"), "python": "3.11.7", "packages": { "numpy": "2.0" } },
        "metrics": { "accuracy": accuracy }, "cost": { "cpu_s": 10.0 * accuracy, "wall_s": 3.0, "max_rss_mb": 90.0 } });
    let evaluated = json!({ "model": model, "bundle": bundle, "candidate": { "accuracy": accuracy }, "active": null,
        "verdict": "accept", "reasons": [], "dataset_digest": data });
    let all = [
        (
            "dataset.updated",
            "digits",
            json!({ "dataset": "digits", "digest": data, "file": "digits.csv", "size": 4 }),
        ),
        (
            "dataset.validated",
            "digits",
            json!({ "dataset": "digits", "digest": data, "file": "digits.csv", "rows": 1797,
            "report": reference, "training": reference, "holdout": reference, "cost": { "cpu_s": 0.5 } }),
        ),
        ("training.finished", model, training),
        ("model.evaluated", model, evaluated),
        (
            "model.deployed",
            model,
            json!({ "model": model, "bundle": bundle, "version": "3", "generation": 8,
            "digest": digest(&format!("served {name}")), "previous_digest": null }),
        ),
    ];
    let events = all.into_iter().zip(start..).map(|((kind, subject, data), second)| {
        let mut event = Event::new("/test", &format!("{name}-{second}"), kind, subject, name, data);
        event.time = Some(format!("2026-11-20T10:{:02}:{:02}Z", second / 60, second % 60));
        event
    });
    events.collect()
}

/// A pipeline's folder with three runs; the connection still writes, as an engine's would.
fn records(folder: &Path) -> Connection {
    let mut connection = Connection::open(folder.join("pipeline.sqlite")).expect("a database");
    connection.execute_batch("PRAGMA journal_mode = WAL").expect("WAL");
    create_tables(&connection).expect("tables");
    let hostile = run("c000000000000003", "wine\u{1b}[31m\",x\n", 0.7, 200).into_iter().take(3);
    let all =
        run("a000000000000001", "iris", 0.9, 0).into_iter().chain(run("b000000000000002", "iris", 0.95, 100));
    let transaction = connection.transaction().expect("a transaction");
    for event in all.chain(hostile) {
        insert(&transaction, &event, None).expect("inserted");
    }
    transaction.commit().expect("committed");
    connection
}

fn baton(arguments: &[&str]) -> Output {
    Command::new(binary()).args(arguments).env_clear().output().expect("it runs")
}

/// Standard output of a command that must succeed.
fn shown(arguments: &[&str]) -> String {
    let output = baton(arguments);
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).expect("UTF-8");
    assert!(output.status.success(), "{arguments:?}: {}", text(&output.stderr));
    text(&output.stdout)
}

/// Exit code and standard error of a command that must fail.
fn refused(arguments: &[&str]) -> (i32, String) {
    let output = baton(arguments);
    assert!(output.stdout.is_empty(), "{arguments:?}");
    (output.status.code().expect("a code"), String::from_utf8(output.stderr).expect("UTF-8"))
}

fn runs_of(text: &str) -> Vec<String> {
    let runs: Vec<Value> = serde_json::from_str(text).expect("JSON");
    runs.iter().map(|run| run["run"].as_str().expect("a name")[..1].to_owned()).collect()
}

#[test]
fn runs_are_found_sorted_and_shown_in_each_form() {
    let folder = tempfile::tempdir().expect("a folder");
    let _writer = records(folder.path());
    let data = folder.path().to_str().expect("UTF-8");
    let check = |arguments: &[&str], expected: &str| {
        let all = [&["history", "--data", data, "--json"], arguments].concat();
        assert_eq!(runs_of(&shown(&all)).concat(), expected, "{arguments:?}");
    };
    check(&[], "cba");
    check(&["iris"], "ba");
    check(&["--where", "accuracy >= 0.9 and dataset = \"digits\""], "ba");
    check(&["--where", "state != 'deployed'"], "c");
    check(&["--sort", "accuracy"], "cab");
    check(&["--sort", "-cost.cpu_s", "--limit", "2"], "ba");
    check(
        &["--where", "started >= 2026-11-20 and started < '2026-11-20T10:03:00Z'", "--sort", "started"],
        "ab",
    );

    let table = shown(&["history", "--data", data, "--where", "model = 'iris'", "--sort", "accuracy"]);
    let lines: Vec<&str> = table.lines().collect();
    assert!(lines[0].starts_with("RUN") && lines[0].contains("COST.CPU_S"), "{table}");
    assert!(lines[1].starts_with("a000000000000001  deployed  iris") && lines[1].contains("0.9 "), "{table}");
    assert_eq!(lines.len(), 3, "{table}");

    let all = shown(&["history", "--data", data, "--runs"]);
    assert!(
        !all.contains('\u{1b}') && all.lines().count() == 4,
        "a name does not steer the terminal: {all:?}"
    );

    let csv = shown(&[
        "history",
        "--data",
        data,
        "--csv",
        "--columns",
        "run,model,metrics.accuracy,verdict",
        "--sort",
        "run",
    ]);
    let expected = "run,model,metrics.accuracy,verdict\na000000000000001,iris,0.9,accept\nb000000000000002,iris,0.95,accept\n\
        c000000000000003,\"wine\u{1b}[31m\"\",x\n\",0.7,\n";
    assert_eq!(csv, expected);
}

#[test]
fn mistakes_are_pointed_at_before_anything_is_asked() {
    let folder = tempfile::tempdir().expect("a folder");
    let _writer = records(folder.path());
    let data = folder.path().to_str().expect("UTF-8");
    // Nobody listens there.
    let (code, text) = refused(&["history", "--where", "state = ", "--pipeline", "http://127.0.0.1:1"]);
    assert_eq!(code, 64);
    assert!(text.contains("--where: column 9") && text.ends_with("  state = \n          ^\n"), "{text}");
    let cases: &[(&[&str], i32, &str)] = &[
        (&["history", "--data", data, "--where", "acuracy > 1"], 64, "did you mean accuracy?"),
        (&["history", "--data", data, "--sort", "cost"], 64, "--sort: column 1: cost is a group"),
        (&["history", "--data", data, "--columns", "dataset.nam"], 64, "did you mean dataset.name?"),
        (&["history", "--data", data, "--limit", "10001"], 64, "--limit is at most 10000"),
        (&["history", "--data", data, "nobody"], 1, "no run made a model \"nobody\""),
        (&["lineage", ""], 1, "nothing is known of \"\""),
        (&["lineage", ".."], 1, "nothing is known of \"..\""),
        (&["history", "--data", "/nowhere"], 69, "there are no records at /nowhere"),
        (&["history", "--runs", "--pipeline", "http://127.0.0.1:1"], 69, "is the pipeline running?"),
        (&["history", "--runs", "--pipeline", "mailto:x"], 64, "is no URL"),
        (&["lineage", "--data", data, "sha256:00"], 1, "is no digest"),
        (&["lineage", "--data", data, "nobody"], 1, "nothing is known of \"nobody\""),
    ];
    for (arguments, expected, reason) in cases {
        let (code, text) = refused(arguments);
        assert_eq!(code, *expected, "{arguments:?}: {text}");
        assert!(text.contains(reason), "{arguments:?}: {text}");
    }
}

#[test]
fn from_the_digest_of_an_answer_to_data_code_and_cost() {
    let folder = tempfile::tempdir().expect("a folder");
    let connection = records(folder.path());
    // As the engine leaves it when it has ended.
    drop(connection);
    let data = folder.path().to_str().expect("UTF-8");
    let served = digest("served b000000000000002");
    let tree = shown(&["lineage", "--data", data, &served]);
    let expected = [
        &format!("served {served}")[..],
        "run b000000000000002  deployed  iris@3  2026-11-20T10:01:40Z  by ada  cpu 10.0 s",
        "commit abcdef",
        "Python 3.11.7  1 package  ",
        "accuracy=0.95",
        "depth=3",
        "digits  digits.csv  1797 rows",
        "before it  digits.csv  1797 rows  2026-11-20T10:00:00Z",
    ];
    for part in expected {
        assert!(tree.contains(part), "{part}: {tree}");
    }
    for subject in
        ["b000000000000002", "iris", "iris@3", &digest("data b000000000000002")[..30], &digest("code")]
    {
        let found: Value =
            serde_json::from_str(&shown(&["lineage", "--data", data, "--json", subject])).expect("JSON");
        let runs = found["runs"].as_array().expect("runs");
        assert!(runs.iter().any(|run| run["run"] == "b000000000000002"), "{subject}: {found}");
        assert!(!found["edges"].as_array().expect("edges").is_empty());
    }
    let events = shown(&["lineage", "--data", data, "--openlineage", &served]);
    let events: Vec<Value> = serde_json::from_str(&events).expect("JSON");
    let told: Vec<&str> = events.iter().map(|event| event["job"]["name"].as_str().expect("a name")).collect();
    assert_eq!(told[told.len() - 2..], ["deploy.iris", "pipeline"]);
}

#[test]
fn what_is_served_is_told_as_it_was_made_though_its_run_trained_again() {
    let folder = tempfile::tempdir().expect("a folder");
    let mut connection = records(folder.path());
    let name = "b000000000000002";
    let bundle = json!({ "digest": digest("worse"), "size": 5 });
    let worse = json!([{ "code": "WORSE", "text": "accuracy" }]);
    let training = json!({ "model": "iris", "bundle": bundle, "parameters": { "depth": 9 },
        "code": { "digest": digest("new code") }, "metrics": { "accuracy": 0.1 } });
    let more = [
        ("training.finished", training),
        (
            "model.evaluated",
            json!({ "model": "iris", "bundle": bundle, "candidate": { "accuracy": 0.1 }, "verdict": "reject", "reasons": worse }),
        ),
        ("model.rejected", json!({ "model": "iris", "bundle": bundle, "reasons": worse })),
        ("training.failed", json!({ "model": "iris", "reason": "memory", "error": "killed" })),
    ];
    let transaction = connection.transaction().expect("a transaction");
    for (second, (kind, data)) in more.into_iter().enumerate() {
        let mut event = Event::new("/test", kind, kind, "iris", name, data);
        event.time = Some(format!("2026-11-20T11:00:0{second}Z"));
        insert(&transaction, &event, None).expect("inserted");
    }
    transaction.commit().expect("committed");
    let data = folder.path().to_str().expect("UTF-8");
    let served = digest(&format!("served {name}"));
    let tree = shown(&["lineage", "--data", data, &served]);
    for part in ["deployed  iris@3", "accuracy=0.95", "depth=3", "verdict     accept"] {
        assert!(tree.contains(part), "{part}: {tree}");
    }
    for part in ["WORSE", "depth=9", "memory"] {
        assert!(!tree.contains(part), "{part}: {tree}");
    }
    let columns = "run,state,version,parameters.depth,accuracy,bundle";
    let csv = shown(&[
        "history",
        "--data",
        data,
        "--csv",
        "--columns",
        columns,
        "--where",
        "run = 'b000000000000002'",
    ]);
    let expected = format!(
        "{columns}\n{name},failed,,,,\n{name},refused,,9,0.1,{}\n{name},deployed,3,3,0.95,{}\n",
        digest("worse"),
        digest(&format!("bundle {name}"))
    );
    assert_eq!(csv, expected);
    let found = shown(&[
        "history",
        "--data",
        data,
        "--json",
        "--where",
        "reasons ~ 'worse' and started < 9999-12-31",
    ]);
    assert_eq!(runs_of(&found).concat(), "b");
    assert!(shown(&["lineage", "--data", data, &digest("new code")]).contains("refused  iris"));
}

#[test]
fn the_pipeline_answers_as_its_folder_does() {
    let folder = tempfile::tempdir().expect("a folder");
    let _writer = records(folder.path());
    let data = folder.path().to_str().expect("UTF-8");
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().expect("a runtime");
    let listener = runtime.block_on(tokio::net::TcpListener::bind("127.0.0.1:0")).expect("a port");
    let address = format!("http://{}/", listener.local_addr().expect("an address"));
    let routes = api::routes(folder.path().join("pipeline.sqlite"));
    runtime.spawn(async move { axum::serve(listener, routes).await });
    let served = digest("served b000000000000002");
    let cases: &[&[&str]] = &[
        &["history", "--runs"],
        &["history", "iris", "--where", "accuracy > 0.5", "--sort", "-accuracy", "--json", "--limit", "1"],
        &["lineage", &served],
        &["lineage", &served, "--json"],
        &["lineage", &served, "--openlineage"],
        &["lineage", "iris@3"],
    ];
    for arguments in cases {
        let over_http = shown(&[arguments, &["--pipeline", &address][..]].concat());
        assert_eq!(over_http, shown(&[arguments, &["--data", data][..]].concat()), "{arguments:?}");
    }
    let (code, text) = refused(&["history", "--where", "acuracy > 1", "--pipeline", &address]);
    assert!(code == 64 && text.contains("did you mean accuracy?"), "{text}");
    let (code, text) = refused(&["history", "--columns", "run,acuracy", "--pipeline", &address]);
    assert!(code == 64 && text.contains("did you mean accuracy?"), "{text}");
    let (code, text) = refused(&["lineage", "a/../b", "--pipeline", &address]);
    assert!(code == 1 && text.contains("nothing is known"), "{text}");
}

#[test]
fn an_answer_that_is_cut_or_cannot_be_written_is_told() {
    let folder = tempfile::tempdir().expect("a folder");
    let _writer = records(folder.path());
    let data = folder.path().to_str().expect("UTF-8");
    let output = baton(&["history", "--data", data, "--json", "--limit", "2"]);
    assert!(output.status.success() && String::from_utf8_lossy(&output.stderr).contains("more than these 2"));
    assert!(baton(&["history", "--data", data, "--json", "--limit", "3"]).stderr.is_empty());
    let full = std::fs::OpenOptions::new().write(true).open("/dev/full").expect("a full disk");
    let output =
        Command::new(binary()).args(["history", "--data", data]).stdout(full).output().expect("it runs");
    assert_eq!(output.status.code(), Some(74));
    assert!(String::from_utf8_lossy(&output.stderr).contains("the output cannot be written"));
}

#[test]
fn without_a_condition_history_still_shows_what_was_served() {
    let runner = Runner::start();
    runner.push("add", &onnx::add(1.0));
    let server = format!("http://{}", runner.admin());
    let table = shown(&["history", "add", "--server", &server]);
    assert!(table.starts_with("AT") && table.contains("BROKEN RULES"), "{table}");
    assert!(table.lines().nth(1).expect("an entry").contains("  add  "), "{table}");
    let entries: Value =
        serde_json::from_str(&shown(&["history", "--server", &server, "--json"])).expect("JSON");
    assert_eq!(entries["entries"][0]["model"], "add");
}
