//! The document of a run's part: a fold over what is known of it and of the parts above it.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use super::seen::{Kind, Part, Seen, time};

/// Costs of a stage, as far as somebody told them. Whole microseconds: sums of floating-point numbers depend on their order.
#[derive(Debug, Default, Clone, Copy, Serialize, Deserialize)]
struct Cost {
    cpu: Option<u64>,
    wall: Option<u64>,
    /// MB.
    peak: Option<f64>,
}

impl Cost {
    /// What is below zero costs nothing.
    fn read(data: &Map<String, Value>) -> Option<Self> {
        let cost = data.get("cost")?.as_object()?;
        let number = |name: &str| cost.get(name).and_then(Value::as_f64).map(|number| number.max(0.0));
        // `as` saturates.
        let micros = |name: &str| number(name).map(|seconds| (seconds * 1e6).round() as u64);
        Some(Self { cpu: micros("cpu_s"), wall: micros("wall_s"), peak: number("max_rss_mb") })
    }

    fn and(self, other: Self) -> Self {
        Self {
            cpu: of_both(self.cpu, other.cpu, u64::saturating_add),
            wall: of_both(self.wall, other.wall, u64::saturating_add),
            peak: of_both(self.peak, other.peak, f64::max),
        }
    }

    fn json(self) -> Map<String, Value> {
        let seconds = |micros: Option<u64>| micros.map(|micros| micros as f64 / 1e6);
        [("cpu_s", seconds(self.cpu)), ("wall_s", seconds(self.wall)), ("max_rss_mb", self.peak)]
            .into_iter()
            .filter_map(|(name, value)| Some((name.to_owned(), value?.into())))
            .collect()
    }
}

fn of_both<T>(left: Option<T>, right: Option<T>, both: impl FnOnce(T, T) -> T) -> Option<T> {
    match (left, right) {
        (Some(left), Some(right)) => Some(both(left, right)),
        (left, right) => left.or(right),
    }
}

/// What a part of a run is folded from.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(super) struct Facts {
    /// Of each type the event that counts, by its number.
    pub(super) last: BTreeMap<Kind, i64>,
    pub(super) events: u64,
    pub(super) first: Option<i64>,
    /// When a training last ended well, here or in an attempt below.
    pub(super) trained: Option<i64>,
    cost: BTreeMap<String, Cost>,
}

impl Facts {
    pub(super) fn add(&mut self, seq: i64, event: &Seen, counts: bool) {
        if counts {
            self.last.insert(event.kind, seq);
        }
        self.events += 1;
        let told = event.text("started").and_then(time);
        self.first = [self.first, event.time, told].into_iter().flatten().min();
        self.note_trained(event);
        if let (Some(stage), Some(cost)) = (event.kind.stage(), Cost::read(&event.data)) {
            let sum = self.cost.entry(stage.to_owned()).or_default();
            *sum = sum.and(cost);
        }
    }

    pub(super) fn note_trained(&mut self, event: &Seen) {
        if event.kind == Kind::Finished {
            self.trained = self.trained.max(event.time);
        }
    }
}

/// Folds events. Fields that nobody gave are left out.
pub(super) fn document(run: &str, part: &Part, line: &[Facts], events: &mut [Seen]) -> Map<String, Value> {
    // Those that count come last.
    events.sort_by(|left, right| left.order().cmp(&right.order()));
    let events = &*events;
    let mut document = Map::new();
    document.insert("run".into(), run.into());
    if !part.is_shared() {
        document.insert("model".into(), part.model.as_str().into());
    }
    for event in events {
        take(&mut document, event);
    }
    if let Some(last) = events.last() {
        document.insert("state".into(), last.kind.state().into());
        put_time(&mut document, "since", last.time);
        if last.kind.is_end() {
            put_time(&mut document, "finished", end(events, last));
        }
    }
    put_time(&mut document, "started", line.iter().filter_map(|part| part.first).min());
    let micros = |name: &str| document.get(name).and_then(Value::as_str).and_then(time);
    if let (Some(from), Some(to)) = (micros("started"), micros("finished")) {
        document.insert("seconds".into(), (to.saturating_sub(from).max(0) as f64 / 1e6).into());
    }
    let mut stages: BTreeMap<&str, Cost> = BTreeMap::new();
    for (stage, &cost) in line.iter().flat_map(|part| &part.cost) {
        let sum = stages.entry(stage).or_default();
        *sum = sum.and(cost);
    }
    if !stages.is_empty() {
        let mut cost = stages.values().fold(Cost::default(), |sum, &cost| sum.and(cost)).json();
        let each = stages.iter().map(|(stage, cost)| ((*stage).to_owned(), Value::Object(cost.json())));
        cost.insert("stages".into(), each.collect());
        document.insert("cost".into(), Value::Object(cost));
    }
    document.insert("events".into(), line.iter().map(|part| part.events).sum::<u64>().into());
    document
}

/// A roll-back may come days later and is not what the run took its time for.
fn end(events: &[Seen], last: &Seen) -> Option<i64> {
    let deployed = events.iter().find(|event| event.kind == Kind::Deployed);
    if last.kind == Kind::RolledBack { deployed.unwrap_or(last) } else { last }.time
}

fn put_time(document: &mut Map<String, Value>, name: &str, micros: Option<i64>) {
    let time = micros.and_then(|micros| jiff::Timestamp::from_microsecond(micros).ok());
    if let Some(time) = time {
        document.insert(name.into(), time.to_string().into());
    }
}

/// Takes what an event knows of its run, if it is of the right type.
fn take(document: &mut Map<String, Value>, event: &Seen) {
    let data = &event.data;
    if event.kind == Kind::Finished {
        // Those of an attempt that failed before.
        document.remove("reasons");
    }
    let dataset = event.text("dataset").or(event.subject.as_deref().filter(|_| event.kind.is_of_dataset()));
    put(document, "dataset", "name", dataset.map(Value::from));
    let digest = if event.kind.is_of_dataset() { "digest" } else { "dataset_digest" };
    put(document, "dataset", "digest", text(data, digest));
    if event.kind.is_of_dataset() {
        put(document, "dataset", "file", text(data, "file"));
        put(document, "dataset", "origin", text(data, "origin"));
        put(document, "dataset", "policy", text(data, "policy"));
        for name in ["size", "rows", "flagged", "drift"] {
            put(document, "dataset", name, number(data, name));
        }
    }
    let mut set = |name: &str, value: Option<Value>| {
        if let Some(value) = value {
            document.insert(name.to_owned(), value);
        }
    };
    for name in ["bundle", "report", "training", "holdout"] {
        set(name, reference(data, name));
    }
    set("who", text(data, "who"));
    match event.kind {
        Kind::Started | Kind::Finished => {
            for name in ["code", "environment", "parameters"] {
                set(name, object(data, name));
            }
            set("metrics", metrics(data, "metrics"));
            set("reused", data.get("reused").filter(|value| value.is_boolean()).cloned());
        }
        Kind::Failed => {
            let reason = event.text("reason").unwrap_or("error");
            let error = event.text("error").unwrap_or_default();
            set("reasons", Some(json!([{ "code": reason, "text": error }])));
        }
        Kind::Evaluated => {
            set("candidate", metrics(data, "candidate"));
            set("active", metrics(data, "active"));
            set("rule", data.get("rule").filter(|rule| !rule.is_null()).cloned());
            set("verdict", text(data, "verdict"));
        }
        Kind::Deployed => {
            // Whatever spoke against it before, or speaks against doing it again.
            set("reasons", Some(json!([])));
            set("version", version(data));
            set("generation", number(data, "generation"));
            set("digest", text(data, "digest"));
            set("previous_digest", text(data, "previous_digest"));
        }
        Kind::RolledBack => {
            let known = [
                ("version", version(data)),
                ("generation", number(data, "generation")),
                ("digest", text(data, "digest")),
            ];
            let known = known.into_iter().filter_map(|(name, value)| Some((name.to_owned(), value?)));
            set("rolledback", Some(Value::Object(known.collect())));
        }
        Kind::Updated | Kind::Rejected | Kind::Validated | Kind::Pushed | Kind::Refused => {}
    }
    set("reasons", data.get("reasons").filter(|reasons| reasons.is_array()).cloned());
}

fn put(document: &mut Map<String, Value>, group: &str, name: &str, value: Option<Value>) {
    let Some(value) = value else { return };
    let group = document.entry(group).or_insert_with(|| Value::Object(Map::new()));
    if let Value::Object(group) = group {
        group.insert(name.to_owned(), value);
    }
}

fn text(data: &Map<String, Value>, name: &str) -> Option<Value> {
    data.get(name).filter(|value| value.is_string()).cloned()
}

fn number(data: &Map<String, Value>, name: &str) -> Option<Value> {
    data.get(name).filter(|value| value.is_number()).cloned()
}

fn object(data: &Map<String, Value>, name: &str) -> Option<Value> {
    data.get(name).filter(|value| value.is_object()).cloned()
}

/// A version is a name, though it looks like a number.
pub(super) fn version(data: &Map<String, Value>) -> Option<Value> {
    match data.get("version")? {
        Value::Number(number) => Some(number.to_string().into()),
        version => version.is_string().then(|| version.clone()),
    }
}

fn reference(data: &Map<String, Value>, name: &str) -> Option<Value> {
    object(data, name).filter(|reference| reference["digest"].is_string())
}

/// Only numbers: "NaN" and `null` are what a library writes when it has none.
fn metrics(data: &Map<String, Value>, name: &str) -> Option<Value> {
    let metrics = data.get(name)?.as_object()?.iter().filter(|(_, value)| value.is_number());
    Some(Value::Object(metrics.map(|(name, value)| (name.clone(), value.clone())).collect()))
}
