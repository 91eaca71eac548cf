//! What is legal and still worth a look: loops, events that nobody is told of, functions that nobody calls.
//!
//! What a function of baton answers is known (`docs/pipeline-reference.md`); what others answer is not, so nothing is said of
//! them.

use std::collections::{BTreeMap, BTreeSet};

use super::{Command, Destination, Filter, Pipeline};
use crate::event::TYPE_PREFIX;

/// How much a remark matters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    Warning,
    Info,
}

/// A remark on a pipeline.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Advice {
    pub level: Level,
    pub text: String,
}

/// Types, without prefix and version, that enter from outside.
const ENTRIES: [&str; 2] = ["dataset.updated", "artifact.pushed"];

fn answers(destination: &Destination, pipeline: &Pipeline) -> &'static [&'static str] {
    match destination {
        Destination::Job { .. } => &["training.started", "training.finished", "training.failed"],
        Destination::Service { name, .. } => {
            let service = pipeline.services.iter().find(|service| service.name == *name);
            let function = service.and_then(|service| match &service.run.command {
                Command::BuiltIn(words) => words.get(1).map(String::as_str),
                Command::Program(_) => None,
            });
            match function {
                Some("validate") => &["dataset.validated", "dataset.rejected"],
                Some("evaluate") => &["model.evaluated"],
                Some("deploy") => &["model.deployed", "model.rejected", "model.rolledback"],
                _ => &[],
            }
        }
        Destination::Url(_) | Destination::Broker => &[],
    }
}

/// Remarks on a pipeline, warnings first.
pub fn advice(pipeline: &Pipeline) -> Vec<Advice> {
    let mut result = Vec::new();
    let mut say = |level, text| result.push(Advice { level, text });
    let silent: Vec<&str> = pipeline
        .triggers
        .iter()
        .filter(|trigger| trigger.delivery.dead_letter.is_none())
        .map(|trigger| trigger.name.as_str())
        .collect();
    if !silent.is_empty() {
        say(
            Level::Warning,
            format!(
                "no deadLetterSink: {}. In a cluster an event that cannot be delivered is then lost; here it is kept and can \
                 be tried again",
                silent.join(", ")
            ),
        );
    }
    if let Some(path) = cycle(&edges(pipeline)) {
        say(Level::Warning, format!("events may go round for ever: {}", path.join(" -> ")));
    }
    let produced: BTreeSet<&str> = pipeline
        .triggers
        .iter()
        .flat_map(|trigger| answers(&trigger.subscriber, pipeline))
        .copied()
        .collect();
    let unheard: Vec<&str> = produced
        .iter()
        .filter(|kind| !pipeline.triggers.iter().any(|trigger| hears(&trigger.filter, kind)))
        .copied()
        .collect();
    if !unheard.is_empty() {
        say(Level::Info, format!("recorded, and no trigger is fired by: {}", unheard.join(", ")));
    }
    let called: BTreeSet<&str> = pipeline
        .triggers
        .iter()
        .flat_map(|trigger| [Some(&trigger.subscriber), trigger.delivery.dead_letter.as_ref()])
        .flatten()
        .chain(pipeline.pings.iter().map(|ping| &ping.sink))
        .filter_map(|destination| match destination {
            Destination::Service { name, .. } | Destination::Job { name } => Some(name.as_str()),
            Destination::Url(_) | Destination::Broker => None,
        })
        .collect();
    let names = pipeline
        .services
        .iter()
        .map(|service| &service.name)
        .chain(pipeline.jobs.iter().map(|job| &job.name));
    let idle: Vec<&str> = names.map(String::as_str).filter(|name| !called.contains(name)).collect();
    if !idle.is_empty() {
        say(Level::Warning, format!("no trigger and no timer calls: {}", idle.join(", ")));
    }
    result.sort_by_key(|advice| advice.level);
    result
}

/// From each type to those that answer it.
fn edges(pipeline: &Pipeline) -> BTreeMap<&'static str, BTreeSet<&'static str>> {
    let kinds: BTreeSet<&'static str> = pipeline
        .triggers
        .iter()
        .flat_map(|trigger| answers(&trigger.subscriber, pipeline))
        .chain(&ENTRIES)
        .copied()
        .collect();
    let reached = |kind: &str| {
        let hearing = pipeline.triggers.iter().filter(|trigger| hears(&trigger.filter, kind));
        hearing.flat_map(|trigger| answers(&trigger.subscriber, pipeline)).copied().collect()
    };
    kinds.iter().map(|kind| (*kind, reached(kind))).collect()
}

/// One cycle, its first type again at the end.
fn cycle(edges: &BTreeMap<&'static str, BTreeSet<&'static str>>) -> Option<Vec<&'static str>> {
    fn visit(
        kind: &'static str,
        edges: &BTreeMap<&'static str, BTreeSet<&'static str>>,
        path: &mut Vec<&'static str>,
        done: &mut BTreeSet<&'static str>,
    ) -> Option<Vec<&'static str>> {
        if let Some(start) = path.iter().position(|known| *known == kind) {
            return Some(path[start..].iter().copied().chain([kind]).collect());
        }
        if !done.insert(kind) {
            return None;
        }
        path.push(kind);
        let found = edges.get(kind).into_iter().flatten().find_map(|next| visit(next, edges, path, done));
        path.pop();
        found
    }
    let mut done = BTreeSet::new();
    edges.keys().find_map(|kind| visit(kind, edges, &mut Vec::new(), &mut done))
}

/// Whether an event of this type may pass, whatever its other attributes are.
fn hears(filter: &Filter, kind: &str) -> bool {
    passes(filter, &format!("{TYPE_PREFIX}{kind}.v1")) != Some(false)
}

/// `None` if it hangs on other attributes.
fn passes(filter: &Filter, kind: &str) -> Option<bool> {
    let attributes =
        |wanted: &BTreeMap<String, String>, fits: fn(&str, &str) -> bool| match wanted.get("type") {
            Some(value) if !fits(kind, value) => Some(false),
            Some(_) if wanted.len() == 1 => Some(true),
            None if wanted.is_empty() => Some(true),
            _ => None,
        };
    match filter {
        Filter::Exact(wanted) => attributes(wanted, |kind, value| value.is_empty() || kind == value),
        Filter::Prefix(wanted) => attributes(wanted, |kind, value| kind.starts_with(value)),
        Filter::Suffix(wanted) => attributes(wanted, |kind, value| kind.ends_with(value)),
        Filter::Not(inner) => passes(inner, kind).map(|passed| !passed),
        Filter::All(filters) => decided(filters, kind, false),
        Filter::Any(filters) => decided(filters, kind, true),
    }
}

/// `decisive` if one filter says so, its contrary if all do, otherwise unknown.
fn decided(filters: &[Filter], kind: &str, decisive: bool) -> Option<bool> {
    let verdicts: Vec<Option<bool>> = filters.iter().map(|filter| passes(filter, kind)).collect();
    if verdicts.contains(&Some(decisive)) {
        Some(decisive)
    } else if verdicts.contains(&None) {
        None
    } else {
        Some(!decisive)
    }
}
