//! The rules that the tree keeps: who may import whom, where `unsafe` and status numbers live, that lists are whole.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the repository").to_owned()
}

/// Every Rust file under a folder: its path from there, and its text.
fn sources(folder: &str) -> Vec<(String, String)> {
    fn walk(base: &Path, folder: &Path, found: &mut Vec<(String, String)>) {
        for entry in std::fs::read_dir(folder).expect("a folder") {
            let path = entry.expect("an entry").path();
            if path.is_dir() {
                walk(base, &path, found);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let name = path.strip_prefix(base).expect("below").to_str().expect("UTF-8").to_owned();
                found.push((name, std::fs::read_to_string(&path).expect("readable")));
            }
        }
    }
    let base = root().join(folder);
    let mut found = Vec::new();
    walk(&base, &base, &mut found);
    found.sort();
    found
}

/// A source without its `#[cfg(test)]` part and its comments.
fn code(text: &str) -> String {
    let text = text.split("#[cfg(test)]\nmod tests").next().unwrap_or_default();
    text.lines().filter(|line| !line.trim_start().starts_with("//")).collect::<Vec<_>>().join("\n")
}

/// Rooms in layers: a room may import only from lower layers, and never from another of its own layer.
const LAYERS: &[&[&str]] = &[
    &["tensor", "error", "failpoint"],
    &["config", "telemetry"],
    &["bundle"],
    &["engine", "store"],
    &["contract"],
    &["requestlog"],
    &["model"],
    &["auth"],
    &["inference", "admin"],
    &["lifecycle"],
    &["app"],
    &["cli"],
];

/// The command line starts the server and reads the wire types; beyond that it knows nothing of the inside.
const CLI_SEES: &[&str] =
    &["admin", "app", "config", "contract", "engine", "error", "lifecycle", "store", "telemetry", "tensor"];

/// The pipeline's rooms.
const PIPELINE_LAYERS: &[&[&str]] = &[
    &["event", "store", "server"],
    &["manifest", "records", "submit"],
    &["feedback", "function"],
    &["engine"],
    &["cli"],
];

fn layer(layers: &[&[&str]], room: &str) -> usize {
    layers
        .iter()
        .position(|rooms| rooms.contains(&room))
        .unwrap_or_else(|| panic!("room {room} has no layer"))
}

/// Who imports whom, as (room, room) and a file where it does.
fn arrows(folder: &str) -> BTreeMap<(String, String), String> {
    let mut arrows = BTreeMap::new();
    for (file, text) in sources(folder) {
        let room = file.split(['/', '.']).next().expect("a room").to_owned();
        if room == "main" || room == "lib" {
            continue;
        }
        for part in code(&text).split("crate::").skip(1) {
            let targets: Vec<String> = match part.strip_prefix('{') {
                Some(list) => {
                    list.split('}').next().unwrap_or_default().split(',').map(str::to_owned).collect()
                }
                None => vec![part.to_owned()],
            };
            for target in targets {
                let target: String = target
                    .trim()
                    .chars()
                    .take_while(|char| char.is_ascii_lowercase() || *char == '_')
                    .collect();
                if !target.is_empty() && target != room {
                    arrows.entry((room.clone(), target)).or_insert(file.clone());
                }
            }
        }
    }
    assert!(arrows.len() > 8, "the walk sees imports: {arrows:?}");
    arrows
}

#[test]
fn no_import_runs_up() {
    for ((from, to), file) in arrows("runner/src") {
        if from == "cli" {
            assert!(CLI_SEES.contains(&to.as_str()), "{file}: cli may not use {to}");
        } else {
            assert!(layer(LAYERS, &from) > layer(LAYERS, &to), "{file}: {from} may not use {to}");
        }
    }
}

#[test]
fn no_import_of_the_pipeline_runs_up() {
    for ((from, to), file) in arrows("pipeline/src") {
        let is_below = layer(PIPELINE_LAYERS, &from) > layer(PIPELINE_LAYERS, &to);
        assert!(is_below, "{file}: {from} may not use {to}");
    }
}

#[test]
fn lower_rooms_know_no_transport() {
    let rooms = ["tensor", "bundle", "store", "engine", "contract", "requestlog", "model", "telemetry"];
    for (file, text) in sources("runner/src") {
        let room = file.split(['/', '.']).next().expect("a room");
        if !rooms.contains(&room) {
            continue;
        }
        for transport in ["axum", "tonic", "hyper", "http::", "reqwest"] {
            assert!(!code(&text).contains(transport), "{file} names {transport}");
        }
        if ["engine", "store", "contract", "requestlog"].contains(&room) {
            assert!(!code(&text).contains("tokio"), "{file}: {room} is synchronous");
        }
    }
}

#[test]
fn unsafe_lives_in_the_engine() {
    for (file, text) in sources("runner/src") {
        let code = code(&text);
        let found = code.contains("unsafe ") || code.contains("unsafe{");
        assert!(!found || file.starts_with("engine/"), "{file} holds unsafe code");
    }
}

#[test]
fn only_error_knows_a_status_number() {
    for (file, text) in sources("runner/src").into_iter().filter(|(file, _)| !file.starts_with("error/")) {
        let code = code(&text);
        assert!(!code.contains("from_u16("), "{file} makes a status of a number");
        for line in code.lines().filter(|line| line.contains("StatusCode::")) {
            let success = ["OK", "CREATED", "NO_CONTENT"]
                .iter()
                .any(|name| line.contains(&format!("StatusCode::{name}")));
            // Readiness answers with a body of its own in both cases.
            let readiness = file == "inference/oip/rest.rs" && line.contains("if ready");
            assert!(success || readiness, "{file}: {line}");
        }
    }
}

#[test]
fn every_file_says_what_it_is_for() {
    for folder in ["runner/src", "tests", "proto/src", "bench/src"] {
        if !root().join(folder).exists() {
            continue;
        }
        for (file, text) in sources(folder) {
            assert!(text.starts_with("//!"), "{folder}/{file} does not begin with its purpose");
        }
    }
}

#[test]
fn every_error_code_is_used_and_has_a_whole_page() {
    let list = std::fs::read_to_string(root().join("runner/src/error/code.rs")).expect("the list");
    let elsewhere: String = sources("runner/src")
        .into_iter()
        .filter(|(file, _)| file != "error/code.rs")
        .map(|(_, text)| text)
        .collect();
    let mut codes = BTreeSet::new();
    for line in list.lines() {
        let words: Vec<&str> = line.split_whitespace().collect();
        let [variant, id, origin, status, ..] = words.as_slice() else { continue };
        let id = id.trim_matches('"');
        if !id.chars().all(|char| char.is_ascii_uppercase() || char == '_') || status.parse::<u16>().is_err()
        {
            continue;
        }
        codes.insert(id.to_owned());
        assert!(elsewhere.contains(&format!("Code::{variant}")), "{id} is never used");
        let page = std::fs::read_to_string(root().join(format!("docs/errors/{id}.md"))).expect(id);
        assert!(page.lines().count() >= 8, "docs/errors/{id}.md is a stub");
        assert!(page.contains(&format!("HTTP {status}")), "docs/errors/{id}.md has another status");
        assert!(
            page.to_lowercase().contains(&origin.to_lowercase()),
            "docs/errors/{id}.md does not say whose fault it is"
        );
    }
    assert!(codes.len() > 50, "the list is read: {codes:?}");
    for entry in std::fs::read_dir(root().join("docs/errors")).expect("a folder") {
        let name = entry.expect("an entry").file_name().into_string().expect("UTF-8");
        let id = name.trim_end_matches(".md").to_owned();
        assert!(codes.contains(&id) || id == "README", "docs/errors/{name} belongs to no code");
    }
}

#[test]
fn every_failpoint_is_hit_and_tested() {
    let list = std::fs::read_to_string(root().join("runner/src/failpoint.rs")).expect("the list");
    let names: Vec<&str> = list
        .split("NAMES: &[&str] = &[")
        .nth(1)
        .and_then(|rest| rest.split("];").next())
        .expect("the list")
        .split('"')
        .skip(1)
        .step_by(2)
        .collect();
    let code: String = sources("runner/src")
        .into_iter()
        .filter(|(file, _)| file != "failpoint.rs")
        .map(|(_, text)| text)
        .collect();
    let tests = std::fs::read_to_string(root().join("tests/tests/crash.rs")).expect("the tests");
    assert!(names.len() > 10, "{names:?}");
    for name in names {
        assert!(code.contains(&format!("\"{name}\"")), "failpoint {name} is never hit");
        assert!(
            tests.contains(&format!("\"{name}\"")) || name == "collect",
            "failpoint {name} is not tested"
        );
    }
}

#[test]
fn no_test_is_switched_off() {
    for folder in ["runner/src", "tests"] {
        for (file, text) in sources(folder) {
            // Split, so that this line is not found.
            assert!(!text.contains(concat!("#[", "ignore")), "{folder}/{file} ignores a test");
        }
    }
}
