//! What others build on is pinned: the OpenAPI document, the names of metrics, the help of the command line.
//!
//! `UPDATE_GOLDEN=1 cargo nextest run -p baton-tests --test golden` writes the files anew; the diff is for review.

use std::path::Path;

use baton_tests::{Runner, onnx, runner::binary};

fn check(name: &str, got: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("golden").join(name);
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        std::fs::write(&path, got).expect("written");
        return;
    }
    let expected = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(expected == got, "{name} has changed; UPDATE_GOLDEN=1 writes it anew. Now:\n{got}");
}

fn output(arguments: &[&str]) -> String {
    let output = std::process::Command::new(binary()).args(arguments).env_clear().output().expect("it runs");
    assert!(output.status.success(), "{arguments:?}");
    String::from_utf8(output.stdout).expect("UTF-8")
}

#[test]
fn openapi_document() {
    check("openapi.json", &output(&["openapi"]));
    let runner = Runner::start();
    let served: serde_json::Value =
        runner.get_admin("/openapi.json").expect("an answer").json().expect("JSON");
    let printed: serde_json::Value = serde_json::from_str(&output(&["openapi"])).expect("JSON");
    assert_eq!(served, printed, "the document that is served is the one that is printed");
    let page = runner.get_admin("/docs/").expect("an answer");
    assert!(page.status().is_success() && page.text().expect("text").contains("swagger-ui"));
}

#[test]
fn metric_names() {
    let runner = Runner::start();
    runner.push("add", &onnx::add(1.0));
    runner.call_add("add");
    let text = runner.get_admin("/metrics").expect("an answer").text().expect("text");
    let names: Vec<&str> = text.lines().filter(|line| line.starts_with("# TYPE")).collect();
    check("metrics.txt", &format!("{}\n", names.join("\n")));
}

#[test]
fn command_line_help() {
    let commands = [
        "serve",
        "push",
        "list",
        "show",
        "history",
        "lineage",
        "activate",
        "rollback",
        "remove",
        "predict",
        "doctor",
        "limits",
        "errors",
        "openapi",
        "completions",
    ];
    let mut text = output(&["--help"]);
    for command in commands {
        text.push_str(&format!("\n## baton {command}\n{}", output(&[command, "--help"])));
    }
    check("help.txt", &text);
}

#[test]
fn limits() {
    check("limits.txt", &output(&["limits"]));
}
