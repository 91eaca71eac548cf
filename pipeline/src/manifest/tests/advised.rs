//! Remarks on legal sets.

use super::super::{Level, advice};
use super::read_text;

/// A set of built-in functions: `(trigger, filter, function)`.
fn set(triggers: &[(&str, &str, &str)]) -> String {
    let mut text = String::new();
    for (name, filter, function) in triggers {
        text.push_str(&format!(
            "---
apiVersion: eventing.knative.dev/v1
kind: Trigger
metadata: {{name: {name}}}
spec:
  broker: default
  filters: {filter}
  subscriber: {{ref: {{apiVersion: serving.knative.dev/v1, kind: Service, name: {function}}}}}
"
        ));
    }
    for function in ["validate", "evaluate", "deploy", "history"] {
        text.push_str(&format!(
            "---
apiVersion: serving.knative.dev/v1
kind: Service
metadata: {{name: {function}}}
spec: {{template: {{spec: {{containers: [{{image: baton, args: [fn, {function}]}}]}}}}}}
"
        ));
    }
    text
}

fn remarks(triggers: &[(&str, &str, &str)]) -> Vec<(Level, String)> {
    let found = read_text(&set(triggers)).unwrap_or_else(|errors| panic!("{errors}"));
    advice(&found.pipeline).into_iter().map(|advice| (advice.level, advice.text)).collect()
}

fn has(remarks: &[(Level, String)], level: Level, part: &str) -> bool {
    remarks.iter().any(|(found, text)| *found == level && text.contains(part))
}

#[test]
fn a_loop_of_known_types_is_shown() {
    let updated = "[{exact: {type: dev.baton.dataset.updated.v1}}]";
    let straight = remarks(&[("a", updated, "validate"), ("h", "[]", "history")]);
    assert!(!has(&straight, Level::Warning, "round"), "{straight:?}");
    // Whoever forgets the filter validates its own answers.
    let own = remarks(&[("a", "[]", "validate")]);
    assert!(has(&own, Level::Warning, "dataset.rejected -> dataset.rejected"), "{own:?}");
    let two = [
        ("a", "[{prefix: {type: dev.baton.dataset.}}, {not: {suffix: {type: updated.v1}}}]", "evaluate"),
        ("b", "[{any: [{exact: {type: dev.baton.model.evaluated.v1, subject: x}}]}]", "validate"),
    ];
    assert!(has(&remarks(&two), Level::Warning, "model.evaluated -> dataset."), "{:?}", remarks(&two));
}

#[test]
fn what_nobody_hears_or_calls_is_said() {
    let found = remarks(&[("a", "[{exact: {type: dev.baton.dataset.updated.v1}}]", "validate")]);
    assert!(has(&found, Level::Info, "dataset.rejected, dataset.validated"), "{found:?}");
    assert!(has(&found, Level::Warning, "no deadLetterSink: a"), "{found:?}");
    assert!(has(&found, Level::Warning, "calls: evaluate, deploy, history"), "{found:?}");
    assert!(found.is_sorted_by_key(|(level, _)| *level), "{found:?}");
}
