//! Runs as a view on the events: one JSON document for each run and model.
//!
//! A document must not depend on the order in which events arrive, nor on how often: retries, several senders and a rebuild
//! from the store would give other runs otherwise. So it is not a log of changes but a fold over little that does not
//! depend on order: for each type of event the last one by its own time, sums of costs as whole numbers, the earliest time.
//! Rejected: folding all events of the run at each insert, which a sender of ten thousand events for one run makes quadratic.
//!
//! A run may train several models on the same data. What names no model (`dataset.*`) is the run's shared part, and shows
//! in the document of each of its models; without any, the shared part is the document.

use std::collections::BTreeMap;

use rusqlite::{CachedStatement, Connection, OptionalExtension, params};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

/// The model of a run's shared part.
const SHARED: &str = "";

/// Makes empty tables of the view, whatever was there.
pub(super) fn create_tables(connection: &Connection) -> rusqlite::Result<()> {
    connection.execute_batch(
        "DROP TABLE IF EXISTS run;
        DROP TABLE IF EXISTS link;
        DROP TABLE IF EXISTS metric;
        -- A part of a run: what is needed to go on (facts), and what is shown, if it is (document). Microseconds since 1970.
        CREATE TABLE run (
            run TEXT NOT NULL,
            model TEXT NOT NULL,
            started INTEGER,
            dataset TEXT,
            facts TEXT NOT NULL,
            document TEXT,
            PRIMARY KEY (run, model)
        );
        CREATE INDEX run_started ON run (started DESC, run, model) WHERE document IS NOT NULL;
        CREATE INDEX run_model ON run (model, started DESC) WHERE document IS NOT NULL;
        CREATE INDEX run_dataset ON run (dataset, started DESC) WHERE document IS NOT NULL;
        -- Every digest that an event of a run names, as hex digits, and what for.
        CREATE TABLE link (
            digest TEXT NOT NULL,
            run TEXT NOT NULL,
            model TEXT NOT NULL,
            role TEXT NOT NULL,
            PRIMARY KEY (digest, run, model, role)
        ) WITHOUT ROWID;
        -- Names of metrics that any run has, for suggestions.
        CREATE TABLE metric (name TEXT PRIMARY KEY) WITHOUT ROWID;",
    )
}

/// What an event tells of its run. The order is that of a run's way; the clocks of those who tell need not agree.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
enum Kind {
    #[serde(rename = "dataset.updated")]
    Updated,
    #[serde(rename = "dataset.rejected")]
    Rejected,
    #[serde(rename = "dataset.validated")]
    Validated,
    #[serde(rename = "artifact.pushed")]
    Pushed,
    #[serde(rename = "training.started")]
    Started,
    #[serde(rename = "training.failed")]
    Failed,
    #[serde(rename = "training.finished")]
    Finished,
    #[serde(rename = "model.evaluated")]
    Evaluated,
    #[serde(rename = "model.rejected")]
    Refused,
    #[serde(rename = "model.deployed")]
    Deployed,
    #[serde(rename = "model.rolledback")]
    RolledBack,
}

impl Kind {
    fn of(kind: &str) -> Option<Self> {
        let short = kind.strip_prefix(crate::event::TYPE_PREFIX)?.strip_suffix(".v1")?;
        serde_json::from_value(short.into()).ok()
    }

    fn rank(self) -> u8 {
        match self {
            Kind::Updated => 0,
            Kind::Rejected | Kind::Validated | Kind::Pushed => 1,
            Kind::Started => 2,
            Kind::Failed => 3,
            // After a failure too: a training that was given up may answer after all.
            Kind::Finished => 4,
            Kind::Evaluated => 5,
            Kind::Refused => 6,
            // What was deployed stays so, though it is compared once more later and refused as what is served already.
            Kind::Deployed => 7,
            Kind::RolledBack => 8,
        }
    }

    /// The state of a run whose furthest event this is.
    fn state(self) -> &'static str {
        match self {
            Kind::Updated => "updated",
            Kind::Rejected => "rejected",
            Kind::Validated => "validated",
            Kind::Pushed => "pushed",
            Kind::Started => "training",
            Kind::Failed => "failed",
            Kind::Finished => "trained",
            Kind::Evaluated => "evaluated",
            Kind::Refused => "refused",
            Kind::Deployed => "deployed",
            Kind::RolledBack => "rolledback",
        }
    }

    /// Nothing is to come after it.
    fn is_end(self) -> bool {
        matches!(self, Kind::Rejected | Kind::Failed | Kind::Refused | Kind::Deployed | Kind::RolledBack)
    }

    fn is_of_dataset(self) -> bool {
        matches!(self, Kind::Updated | Kind::Rejected | Kind::Validated)
    }

    /// The stage that spent the event's cost.
    fn stage(self) -> Option<&'static str> {
        match self {
            Kind::Rejected | Kind::Validated => Some("validate"),
            Kind::Failed | Kind::Finished => Some("train"),
            Kind::Evaluated => Some("evaluate"),
            Kind::Refused | Kind::Deployed | Kind::RolledBack => Some("deploy"),
            Kind::Updated | Kind::Pushed | Kind::Started => None,
        }
    }
}

/// What the view needs of an event.
struct Seen {
    kind: Kind,
    /// Microseconds since 1970.
    time: Option<i64>,
    source: String,
    id: String,
    subject: Option<String>,
    data: Map<String, Value>,
}

impl Seen {
    /// `None` for an event that is not of the pipeline, or that is stored in a form that cannot be read back.
    fn read(body: &str) -> Option<Self> {
        let Ok(Value::Object(mut body)) = serde_json::from_str(body) else { return None };
        let mut text = |name: &str| match body.remove(name) {
            Some(Value::String(text)) => Some(text),
            _ => None,
        };
        let kind = Kind::of(&text("type")?)?;
        let time = text("time").as_deref().and_then(time);
        let (source, id, subject) = (text("source")?, text("id")?, text("subject"));
        let data = match body.remove("data") {
            Some(Value::Object(data)) => data,
            _ => Map::new(),
        };
        Some(Self { kind, time, source, id, subject, data })
    }

    /// The model whose part it belongs to.
    fn model(&self) -> &str {
        if self.kind.is_of_dataset() {
            return SHARED;
        }
        let named = self.text("model").filter(|model| !model.is_empty());
        named.or(self.subject.as_deref()).unwrap_or(SHARED)
    }

    fn text(&self, name: &str) -> Option<&str> {
        self.data.get(name)?.as_str()
    }

    /// Says which of two events counts; no two events have the same.
    fn order(&self) -> (u8, Option<i64>, Kind, &str, &str) {
        (self.kind.rank(), self.time, self.kind, &self.source, &self.id)
    }
}

/// RFC 3339 to microseconds since 1970.
pub(super) fn time(text: &str) -> Option<i64> {
    text.parse::<jiff::Timestamp>().ok().map(jiff::Timestamp::as_microsecond)
}

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
struct Facts {
    /// Of each type the event that counts, by its number.
    last: BTreeMap<Kind, i64>,
    events: u64,
    first: Option<i64>,
    cost: BTreeMap<String, Cost>,
}

impl Facts {
    fn add(&mut self, seq: i64, event: &Seen, counts: bool) {
        if counts {
            self.last.insert(event.kind, seq);
        }
        self.events += 1;
        let told = event.text("started").and_then(time);
        self.first = [self.first, event.time, told].into_iter().flatten().min();
        if let (Some(stage), Some(cost)) = (event.kind.stage(), Cost::read(&event.data)) {
            let sum = self.cost.entry(stage.to_owned()).or_default();
            *sum = sum.and(cost);
        }
    }
}

/// Brings a run up to date with one of its events, which must be in the table and not in the view yet.
pub(super) fn update(connection: &Connection, seq: i64, run: &str) -> rusqlite::Result<()> {
    let mut bodies = connection.prepare_cached("SELECT body FROM event WHERE seq = ?1")?;
    // Read back even though the caller has it: a rebuild sees the same.
    let Some(event) = read(&mut bodies, seq)? else { return Ok(()) };
    let model = event.model().to_owned();
    keep_links(connection, run, &model, &event)?;
    keep_metrics(connection, &event)?;

    let mut facts = load(connection, run, &model)?.unwrap_or_default();
    let counts = match facts.last.get(&event.kind) {
        Some(&last) => read(&mut bodies, last)?.is_none_or(|last| last.order() < event.order()),
        None => true,
    };
    facts.add(seq, &event, counts);
    let text = serde_json::to_string(&facts).unwrap_or_default();
    connection
        .prepare_cached(
            "INSERT INTO run (run, model, facts) VALUES (?1, ?2, ?3)
             ON CONFLICT DO UPDATE SET facts = excluded.facts",
        )?
        .execute(params![run, model, text])?;

    let shared = if model == SHARED { Some(facts) } else { load(connection, run, SHARED)? };
    let touched: Vec<String> = if model == SHARED {
        connection
            .prepare_cached("SELECT model FROM run WHERE run = ?1 AND model <> ?2")?
            .query_map([run, SHARED], |row| row.get(0))?
            .collect::<rusqlite::Result<_>>()?
    } else {
        // From now on the shared part shows in the models' documents alone.
        connection
            .prepare_cached("UPDATE run SET document = NULL WHERE run = ?1 AND model = ?2")?
            .execute([run, SHARED])?;
        vec![model]
    };
    for model in &touched {
        let own = load(connection, run, model)?;
        show(connection, &mut bodies, run, model, [shared.as_ref(), own.as_ref()])?;
    }
    if touched.is_empty() {
        show(connection, &mut bodies, run, SHARED, [shared.as_ref(), None])?;
    }
    Ok(())
}

fn read(bodies: &mut CachedStatement, seq: i64) -> rusqlite::Result<Option<Seen>> {
    let seen = bodies.query_row([seq], |row| Ok(Seen::read(row.get_ref(0)?.as_str()?))).optional()?;
    Ok(seen.flatten())
}

fn load(connection: &Connection, run: &str, model: &str) -> rusqlite::Result<Option<Facts>> {
    connection
        .prepare_cached("SELECT facts FROM run WHERE run = ?1 AND model = ?2")?
        .query_row(
            [run, model],
            |row| Ok(serde_json::from_str(row.get_ref(0)?.as_str()?).unwrap_or_default()),
        )
        .optional()
}

fn show(
    connection: &Connection,
    bodies: &mut CachedStatement,
    run: &str,
    model: &str,
    parts: [Option<&Facts>; 2],
) -> rusqlite::Result<()> {
    let mut events = Vec::new();
    for &seq in parts.iter().flatten().flat_map(|facts| facts.last.values()) {
        events.extend(read(bodies, seq)?);
    }
    events.sort_by(|left, right| left.order().cmp(&right.order()));
    let document = document(run, model, parts, &events);
    let started = document.get("started").and_then(Value::as_str).and_then(time);
    let dataset = document.get("dataset").and_then(|dataset| dataset["name"].as_str());
    connection
        .prepare_cached(
            "UPDATE run SET document = ?3, started = ?4, dataset = ?5 WHERE run = ?1 AND model = ?2",
        )?
        .execute(params![run, model, Value::Object(document.clone()).to_string(), started, dataset])?;
    Ok(())
}

/// Folds events, those that count last at the end. Fields that nobody gave are left out.
fn document(run: &str, model: &str, parts: [Option<&Facts>; 2], events: &[Seen]) -> Map<String, Value> {
    let mut document = Map::new();
    document.insert("run".into(), run.into());
    if model != SHARED {
        document.insert("model".into(), model.into());
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
    let parts = || parts.into_iter().flatten();
    put_time(&mut document, "started", parts().filter_map(|part| part.first).min());
    let micros = |name: &str| document.get(name).and_then(Value::as_str).and_then(time);
    if let (Some(from), Some(to)) = (micros("started"), micros("finished")) {
        document.insert("seconds".into(), (to.saturating_sub(from).max(0) as f64 / 1e6).into());
    }
    let mut stages: BTreeMap<&str, Cost> = BTreeMap::new();
    for (stage, &cost) in parts().flat_map(|part| &part.cost) {
        let sum = stages.entry(stage).or_default();
        *sum = sum.and(cost);
    }
    if !stages.is_empty() {
        let mut cost = stages.values().fold(Cost::default(), |sum, &cost| sum.and(cost)).json();
        let each = stages.iter().map(|(stage, cost)| ((*stage).to_owned(), Value::Object(cost.json())));
        cost.insert("stages".into(), each.collect());
        document.insert("cost".into(), Value::Object(cost));
    }
    document.insert("events".into(), parts().map(|part| part.events).sum::<u64>().into());
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
fn version(data: &Map<String, Value>) -> Option<Value> {
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

fn keep_metrics(connection: &Connection, event: &Seen) -> rusqlite::Result<()> {
    let mut keep = connection.prepare_cached("INSERT OR IGNORE INTO metric (name) VALUES (?1)")?;
    for group in ["metrics", "candidate", "active"] {
        for (name, _) in event
            .data
            .get(group)
            .and_then(Value::as_object)
            .into_iter()
            .flatten()
            .filter(|(_, v)| v.is_number())
        {
            keep.execute([name])?;
        }
    }
    Ok(())
}

fn keep_links(connection: &Connection, run: &str, model: &str, event: &Seen) -> rusqlite::Result<()> {
    let mut keep = connection
        .prepare_cached("INSERT OR IGNORE INTO link (digest, run, model, role) VALUES (?1, ?2, ?3, ?4)")?;
    for (digest, role) in links(event) {
        keep.execute([digest, run, model, role])?;
    }
    Ok(())
}

/// Every digest that an event names, and what for.
fn links(event: &Seen) -> Vec<(&str, &str)> {
    let own = match event.kind {
        kind if kind.is_of_dataset() => "dataset",
        Kind::Deployed => "served",
        Kind::RolledBack => "restored",
        _ => "other",
    };
    let mut links = Vec::new();
    let mut found = Vec::new();
    for (name, value) in &event.data {
        // What is below, a sender names as it likes: `parameters.replaced` replaced nothing.
        let role = match name.as_str() {
            "digest" => own,
            "dataset_digest" => "dataset",
            "previous_digest" => "replaced",
            "active_digest" => "compared",
            name => name,
        };
        digests(value, &mut found);
        links.extend(found.drain(..).map(|digest| (digest, role)));
    }
    links
}

/// What a run's document says no more, because a stage that ran again has replaced it.
pub(super) enum Past<'a> {
    /// As hex digits, in a role other than these.
    Digest(&'a str, &'a [&'a str]),
    /// Of what was deployed.
    Version(&'a str),
}

impl Past<'_> {
    fn is_named_by(&self, event: &Seen) -> bool {
        match self {
            Past::Digest(digest, but) => {
                links(event).iter().any(|(found, role)| found == digest && !but.contains(role))
            }
            Past::Version(wanted) => {
                event.kind == Kind::Deployed && version(&event.data).is_some_and(|found| found == *wanted)
            }
        }
    }
}

/// The document of a run as it was when something was named; `None` if what is shown names it still, or nothing ever did.
pub(super) fn as_it_was(
    connection: &Connection,
    run: &str,
    model: &str,
    past: &Past,
) -> rusqlite::Result<Option<Value>> {
    let mut events: Vec<(i64, Seen)> = connection
        .prepare_cached("SELECT seq, body FROM event WHERE run = ?1 ORDER BY seq")?
        .query_map([run], |row| Ok((row.get(0)?, Seen::read(row.get_ref(1)?.as_str()?))))?
        .filter_map(|row| row.map(|(seq, event)| Some((seq, event?))).transpose())
        .collect::<rusqlite::Result<_>>()?;
    events.retain(|(_, event)| event.model() == SHARED || event.model() == model);
    let naming = events.iter().filter(|(_, event)| past.is_named_by(event));
    let Some((last, then)) =
        naming.max_by_key(|(_, event)| event.time).map(|(seq, event)| (*seq, event.time))
    else {
        return Ok(None);
    };
    let fold = |events: &[(i64, Seen)]| {
        let mut facts = Facts::default();
        let mut counting: BTreeMap<Kind, &Seen> = BTreeMap::new();
        for (seq, event) in events {
            let counts = counting.get(&event.kind).is_none_or(|known| known.order() < event.order());
            facts.add(*seq, event, counts);
            if counts {
                counting.insert(event.kind, event);
            }
        }
        facts
    };
    let counts = |facts: &Facts, seq: i64| facts.last.values().any(|last| *last == seq);
    if counts(&fold(&events), last) {
        return Ok(None);
    }
    events.retain(|(_, event)| event.time <= then);
    let facts = fold(&events);
    events.retain(|(seq, _)| counts(&facts, *seq));
    let mut counting: Vec<Seen> = events.into_iter().map(|(_, event)| event).collect();
    counting.sort_by(|left, right| left.order().cmp(&right.order()));
    Ok(Some(Value::Object(document(run, model, [Some(&facts), None], &counting))))
}

/// Every digest in a value, however deep.
fn digests<'a>(value: &'a Value, found: &mut Vec<&'a str>) {
    match value {
        Value::String(text) => found.extend(hex(text)),
        Value::Array(list) => list.iter().for_each(|value| digests(value, found)),
        Value::Object(object) => object.values().for_each(|value| digests(value, found)),
        _ => {}
    }
}

fn hex(digest: &str) -> Option<&str> {
    let hex = digest.strip_prefix("sha256:")?;
    let is_hex = |byte: u8| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte);
    (hex.len() == 64 && hex.bytes().all(is_hex)).then_some(hex)
}
