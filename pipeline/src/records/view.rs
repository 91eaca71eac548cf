//! Runs as a view on the events: one JSON document for each run, model and attempt at the model.
//!
//! A document must not depend on the order in which events arrive, nor on how often: retries, several senders and a rebuild
//! from the store would give other runs otherwise. So it is not a log of changes but a fold over little that does not
//! depend on order: for each type of event the last one by its own time, sums of costs as whole numbers, the earliest time.
//! Rejected: folding all events of the run at each insert, which a sender of ten thousand events for one run makes quadratic.
//!
//! A run has parts. What names no model (`dataset.*`) is its shared part. What names a model, but no bundle (`training.started`,
//! `training.failed`), is that model's part. What names a bundle is of the attempt that made it: when code changes, the same run
//! trains again, and what is served must not be told with what another attempt found. A part shows in the documents of those below
//! it: an attempt always has a document, a part above it only while there is nothing below it, or if it tells what nothing below it
//! does ([`View::is_shown`]).
//!
//! An event of an attempt changes the document of that attempt alone, however many there are. One of a part above changes all
//! documents below it; that is accepted, because a run has few of those: one validation, and a start for each attempt.

use std::collections::BTreeMap;

use rusqlite::{CachedStatement, Connection, OptionalExtension, params};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

/// Kinds of turns.
const DEPLOYED: &str = "deployed";
const ROLLED_BACK: &str = "rolledback";

/// The model of a run's shared part, and the bundle of a part that is no attempt's.
const NONE: &str = "";

/// A part of a run.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Part {
    pub(super) model: String,
    /// Its digest.
    pub(super) bundle: String,
}

impl Part {
    fn new(model: &str, bundle: &str) -> Self {
        Self { model: model.to_owned(), bundle: bundle.to_owned() }
    }

    fn shared() -> Self {
        Self::new(NONE, NONE)
    }

    fn of_model(&self) -> Self {
        Self::new(&self.model, NONE)
    }

    fn is_shared(&self) -> bool {
        self.model == NONE
    }

    fn is_attempt(&self) -> bool {
        self.bundle != NONE
    }

    /// Those above it, the shared part first, and it.
    fn line(&self) -> Vec<Self> {
        let mut line = vec![Self::shared(), self.of_model(), self.clone()];
        line.dedup();
        line
    }

    /// Is the event of it, or of a part above it?
    fn is_below(&self, event: &Seen) -> bool {
        let (model, bundle) = (event.model(), event.bundle());
        model == NONE || model == self.model && (bundle == NONE || bundle == self.bundle)
    }
}

/// Makes empty tables of the view, whatever was there.
pub(super) fn create_tables(connection: &Connection) -> rusqlite::Result<()> {
    connection.execute_batch(
        "DROP TABLE IF EXISTS run;
        DROP TABLE IF EXISTS link;
        DROP TABLE IF EXISTS metric;
        DROP TABLE IF EXISTS turn;
        -- A part of a run: what is needed to go on (facts), and what is shown, if it is (document). Microseconds since 1970.
        CREATE TABLE run (
            run TEXT NOT NULL,
            model TEXT NOT NULL,
            bundle TEXT NOT NULL,
            started INTEGER,
            since INTEGER,
            dataset TEXT,
            facts TEXT NOT NULL,
            document TEXT,
            PRIMARY KEY (run, model, bundle)
        );
        CREATE INDEX run_started ON run (started DESC, run, model, since DESC, bundle) WHERE document IS NOT NULL;
        CREATE INDEX run_model ON run (model, started DESC, run, since DESC, bundle) WHERE document IS NOT NULL;
        CREATE INDEX run_dataset ON run (dataset, started DESC) WHERE document IS NOT NULL;
        -- Every digest that an event of a run names, as hex digits, and what for.
        CREATE TABLE link (
            digest TEXT NOT NULL,
            run TEXT NOT NULL,
            model TEXT NOT NULL,
            bundle TEXT NOT NULL,
            role TEXT NOT NULL,
            PRIMARY KEY (digest, run, model, bundle, role)
        ) WITHOUT ROWID;
        -- Of a model of a run: when which attempt was deployed, and when one was rolled back without a word about which.
        CREATE TABLE turn (
            run TEXT NOT NULL,
            model TEXT NOT NULL,
            kind TEXT NOT NULL,
            at INTEGER NOT NULL,
            source TEXT NOT NULL,
            id TEXT NOT NULL,
            bundle TEXT NOT NULL,
            seq INTEGER NOT NULL,
            PRIMARY KEY (run, model, kind, at, source, id)
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
#[derive(Clone)]
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
            return NONE;
        }
        let named = self.text("model").filter(|model| !model.is_empty());
        named.or(self.subject.as_deref()).unwrap_or(NONE)
    }

    /// The bundle of the attempt that it belongs to.
    fn bundle(&self) -> &str {
        if self.model() == NONE { NONE } else { bundle(self.kind, &self.data) }
    }

    fn part(&self) -> Part {
        Part::new(self.model(), self.bundle())
    }

    /// Is it of a model, but of none of the attempts at it?
    fn is_of_model_alone(&self) -> bool {
        self.model() != NONE && self.bundle() == NONE
    }

    /// For a table whose times must not be missing.
    fn at(&self) -> i64 {
        self.time.unwrap_or(i64::MIN)
    }

    fn text(&self, name: &str) -> Option<&str> {
        self.data.get(name)?.as_str()
    }

    /// Says which of two events counts; no two events have the same.
    fn order(&self) -> (u8, bool, Option<i64>, Kind, &str, &str) {
        (self.kind.rank(), self.has_measured(), self.time, self.kind, &self.source, &self.id)
    }

    /// A candidate that is being served already is refused without a look at it; that says nothing against what was measured before.
    fn has_measured(&self) -> bool {
        self.kind == Kind::Evaluated
            && self
                .data
                .get("candidate")
                .and_then(Value::as_object)
                .is_some_and(|measured| !measured.is_empty())
    }
}

/// The bundle that an event names, if its type is of an attempt: what has begun or failed has made none.
fn bundle(kind: Kind, data: &Map<String, Value>) -> &str {
    let named = || data.get("bundle")?.get("digest")?.as_str();
    let is_of_attempt = !kind.is_of_dataset() && !matches!(kind, Kind::Started | Kind::Failed);
    named().filter(|_| is_of_attempt).unwrap_or(NONE)
}

/// The same of an event as JSON.
pub(super) fn bundle_of(event: &Value) -> &str {
    let kind = event["type"].as_str().and_then(Kind::of);
    kind.zip(event["data"].as_object()).map_or(NONE, |(kind, data)| bundle(kind, data))
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
    /// When a training last ended well, here or in an attempt below.
    trained: Option<i64>,
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
        self.note_trained(event);
        if let (Some(stage), Some(cost)) = (event.kind.stage(), Cost::read(&event.data)) {
            let sum = self.cost.entry(stage.to_owned()).or_default();
            *sum = sum.and(cost);
        }
    }

    fn note_trained(&mut self, event: &Seen) {
        if event.kind == Kind::Finished {
            self.trained = self.trained.max(event.time);
        }
    }
}

/// Brings a run up to date with one of its events, which must be in the table and not in the view yet.
pub(super) fn update(connection: &Connection, seq: i64, run: &str) -> rusqlite::Result<()> {
    let bodies = connection.prepare_cached("SELECT body FROM event WHERE seq = ?1")?;
    let mut view = View { connection, bodies, run };
    // Read back even though the caller has it: a rebuild sees the same.
    let Some(event) = view.read(seq)? else { return Ok(()) };
    let part = event.part();
    keep_links(connection, run, &part, &event)?;
    keep_metrics(connection, &event)?;
    view.keep_turn(&part, seq, &event)?;
    view.keep_facts(&part, seq, &event)?;
    for part in view.touched(&part, &event)? {
        view.show(&part)?;
    }
    Ok(())
}

/// The parts of one run in the tables.
struct View<'a> {
    connection: &'a Connection,
    bodies: CachedStatement<'a>,
    run: &'a str,
}

impl View<'_> {
    fn read(&mut self, seq: i64) -> rusqlite::Result<Option<Seen>> {
        let seen =
            self.bodies.query_row([seq], |row| Ok(Seen::read(row.get_ref(0)?.as_str()?))).optional()?;
        Ok(seen.flatten())
    }

    fn load(&self, part: &Part) -> rusqlite::Result<Option<Facts>> {
        self.connection
            .prepare_cached("SELECT facts FROM run WHERE run = ?1 AND model = ?2 AND bundle = ?3")?
            .query_row([self.run, &part.model, &part.bundle], |row| {
                Ok(serde_json::from_str(row.get_ref(0)?.as_str()?).unwrap_or_default())
            })
            .optional()
    }

    fn store(&self, part: &Part, facts: &Facts) -> rusqlite::Result<()> {
        let text = serde_json::to_string(facts).unwrap_or_default();
        self.connection
            .prepare_cached(
                "INSERT INTO run (run, model, bundle, facts) VALUES (?1, ?2, ?3, ?4)
                 ON CONFLICT DO UPDATE SET facts = excluded.facts",
            )?
            .execute(params![self.run, part.model, part.bundle, text])?;
        Ok(())
    }

    fn keep_facts(&mut self, part: &Part, seq: i64, event: &Seen) -> rusqlite::Result<()> {
        let mut facts = self.load(part)?.unwrap_or_default();
        let counts = match facts.last.get(&event.kind) {
            Some(&last) => self.read(last)?.is_none_or(|last| last.order() < event.order()),
            None => true,
        };
        facts.add(seq, event, counts);
        self.store(part, &facts)?;
        if part.is_attempt() {
            // Every attempt has its model's part above it, though nothing but this was said of it yet.
            let above = part.of_model();
            let known = self.load(&above)?;
            let is_new = known.is_none();
            let mut facts = known.unwrap_or_default();
            let before = facts.trained;
            facts.note_trained(event);
            if is_new || facts.trained != before {
                self.store(&above, &facts)?;
            }
        }
        Ok(())
    }

    fn keep_turn(&self, part: &Part, seq: i64, event: &Seen) -> rusqlite::Result<()> {
        let kind = match event.kind {
            Kind::Deployed if part.is_attempt() => DEPLOYED,
            Kind::RolledBack if event.is_of_model_alone() => ROLLED_BACK,
            _ => return Ok(()),
        };
        self.connection
            .prepare_cached(
                "INSERT OR IGNORE INTO turn (run, model, kind, at, source, id, bundle, seq)
                 VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)",
            )?
            .execute(params![
                self.run,
                part.model,
                kind,
                event.at(),
                event.source,
                event.id,
                part.bundle,
                seq
            ])?;
        Ok(())
    }

    /// The parts whose documents an event of this one may change.
    fn touched(&self, part: &Part, event: &Seen) -> rusqlite::Result<Vec<Part>> {
        let read = |row: &rusqlite::Row| Ok(Part { model: row.get(0)?, bundle: row.get(1)? });
        if part.is_shared() {
            let mut all = self.connection.prepare_cached("SELECT model, bundle FROM run WHERE run = ?1")?;
            return all.query_map([self.run], read)?.collect();
        }
        if !part.is_attempt() {
            let mut touched = vec![Part::shared()];
            let mut below = self
                .connection
                .prepare_cached("SELECT model, bundle FROM run WHERE run = ?1 AND model = ?2")?;
            for part in below.query_map([self.run, &part.model], read)? {
                touched.push(part?);
            }
            return Ok(touched);
        }
        let mut touched = part.line();
        let model = self.load(&part.of_model())?.unwrap_or_default();
        if event.kind == Kind::Deployed && model.last.contains_key(&Kind::RolledBack) {
            // What was rolled back is this one now, and no more the one before or behind it.
            for is_before in [true, false] {
                let beside = self.deployed_beside(&part.model, event, is_before)?;
                touched.extend(beside.map(|(_, bundle)| Part { model: part.model.clone(), bundle }));
            }
        }
        Ok(touched)
    }

    /// When the attempt was deployed that was so just before an event, or just after it, and its bundle.
    fn deployed_beside(
        &self,
        model: &str,
        event: &Seen,
        is_before: bool,
    ) -> rusqlite::Result<Option<(i64, String)>> {
        let beside = match is_before {
            true => "(at, source, id) < (?4, ?5, ?6) ORDER BY at DESC, source DESC, id DESC",
            false => "(at, source, id) > (?4, ?5, ?6) ORDER BY at, source, id",
        };
        self.connection
            .prepare_cached(&format!(
                "SELECT at, bundle FROM turn WHERE run = ?1 AND model = ?2 AND kind = ?3 AND {beside} LIMIT 1"
            ))?
            .query_row(params![self.run, model, DEPLOYED, event.at(), event.source, event.id], |row| {
                Ok((row.get(0)?, row.get(1)?))
            })
            .optional()
    }

    /// Who rolls back need not say which attempt: it is the one that was deployed last before. What comes before
    /// all of them is of the first, since clocks need not agree.
    fn rolled_back(&mut self, model: &str, deployed: &Seen) -> rusqlite::Result<Option<Seen>> {
        let is_first = self.deployed_beside(model, deployed, true)?.is_none();
        let from = if is_first { i64::MIN } else { deployed.at() };
        let next = self.deployed_beside(model, deployed, false)?;
        let to = next.map_or(i64::MAX, |(at, _)| at);
        let seq = self
            .connection
            .prepare_cached(
                "SELECT seq FROM turn WHERE run = ?1 AND model = ?2 AND kind = ?3 AND at >= ?4 AND at < ?5
                 ORDER BY at DESC, source DESC, id DESC LIMIT 1",
            )?
            .query_row(params![self.run, model, ROLLED_BACK, from, to], |row| row.get(0))
            .optional()?;
        seq.map_or(Ok(None), |seq| self.read(seq))
    }

    fn exists(&self, sql: &str, model: &str) -> rusqlite::Result<bool> {
        self.connection.prepare_cached(sql)?.exists([self.run, model])
    }

    /// Has some attempt at the model been deployed? Then each roll-back is of one of them.
    fn has_deployed(&self, model: &str) -> rusqlite::Result<bool> {
        self.exists("SELECT 1 FROM turn WHERE run = ?1 AND model = ?2 AND kind = 'deployed'", model)
    }

    /// Has the part a document of its own, besides those of the parts below it?
    fn is_shown(&mut self, part: &Part) -> rusqlite::Result<bool> {
        if part.is_attempt() {
            return Ok(true);
        }
        if part.is_shared() {
            return Ok(!self.exists("SELECT 1 FROM run WHERE run = ?1 AND model <> ?2", NONE)?);
        }
        if !self.exists("SELECT 1 FROM run WHERE run = ?1 AND model = ?2 AND bundle <> ''", &part.model)? {
            return Ok(true);
        }
        let facts = self.load(part)?.unwrap_or_default();
        // What came of some attempt, and nobody said of which.
        let is_result = |kind: &Kind| !matches!(kind, Kind::Started | Kind::Failed | Kind::RolledBack);
        if facts.last.keys().any(is_result)
            || facts.last.contains_key(&Kind::RolledBack) && !self.has_deployed(&part.model)?
        {
            return Ok(true);
        }
        // An attempt that failed after one that worked; one that failed before is over.
        let Some(&failed) = facts.last.get(&Kind::Failed) else { return Ok(false) };
        let failed = self.read(failed)?.and_then(|failed| failed.time);
        Ok(facts.trained.is_none_or(|trained| failed > Some(trained)))
    }

    /// Writes what is shown of a part.
    fn show(&mut self, part: &Part) -> rusqlite::Result<()> {
        if !self.is_shown(part)? {
            self.connection
                .prepare_cached(
                    "UPDATE run SET document = NULL WHERE run = ?1 AND model = ?2 AND bundle = ?3 AND document IS NOT NULL",
                )?
                .execute([self.run, &part.model, &part.bundle])?;
            return Ok(());
        }
        let mut line = Vec::new();
        let mut events = Vec::new();
        for part in part.line() {
            let Some(facts) = self.load(&part)? else { continue };
            for &seq in facts.last.values() {
                events.extend(self.read(seq)?);
            }
            line.push(facts);
        }
        let may_be_rolled_back = events.iter().any(|event| event.kind == Kind::RolledBack);
        if part.is_attempt() {
            keep_own(part, &mut events);
            let deployed = events.iter().find(|event| event.kind == Kind::Deployed && event.part() == *part);
            if may_be_rolled_back && let Some(deployed) = deployed {
                let rolled_back = self.rolled_back(&part.model, deployed)?;
                events.extend(rolled_back);
            }
        } else if may_be_rolled_back && self.has_deployed(&part.model)? {
            events.retain(|event| !(event.kind == Kind::RolledBack && event.is_of_model_alone()));
        }
        let document = document(self.run, part, &line, &mut events);
        let micros = |name: &str| document.get(name).and_then(Value::as_str).and_then(time);
        let dataset = document.get("dataset").and_then(|dataset| dataset["name"].as_str());
        self.connection
            .prepare_cached(
                "UPDATE run SET document = ?4, started = ?5, since = ?6, dataset = ?7
                 WHERE run = ?1 AND model = ?2 AND bundle = ?3",
            )?
            .execute(params![
                self.run,
                part.model,
                part.bundle,
                Value::Object(document.clone()).to_string(),
                micros("started"),
                micros("since"),
                dataset
            ])?;
        Ok(())
    }
}

/// Leaves out what an attempt's model did besides it. Its training is the last one that had begun when it ended: what began later
/// made another bundle, what failed made none, and what else names no bundle may be of any.
fn keep_own(attempt: &Part, events: &mut Vec<Seen>) {
    let ended = events.iter().find(|event| event.kind == Kind::Finished && event.part() == *attempt);
    let ended = ended.map(|event| event.time);
    events.retain(|event| {
        let is_its_start = event.kind == Kind::Started && ended.is_some_and(|ended| event.time <= ended);
        !event.is_of_model_alone() || is_its_start
    });
}

/// Folds events. Fields that nobody gave are left out.
fn document(run: &str, part: &Part, line: &[Facts], events: &mut [Seen]) -> Map<String, Value> {
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

fn keep_links(connection: &Connection, run: &str, part: &Part, event: &Seen) -> rusqlite::Result<()> {
    let mut keep = connection.prepare_cached(
        "INSERT OR IGNORE INTO link (digest, run, model, bundle, role) VALUES (?1, ?2, ?3, ?4, ?5)",
    )?;
    for (digest, role) in links(event) {
        keep.execute([digest, run, &part.model, &part.bundle, role])?;
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
    /// Does a document say it?
    pub(super) fn is_told_by(&self, document: &Value) -> bool {
        match self {
            Past::Digest(digest, _) => document.as_object().into_iter().flatten().any(|(name, value)| {
                let mut found = Vec::new();
                digests(value, &mut found);
                // Those two it did not make.
                !["previous_digest", "rolledback"].contains(&name.as_str()) && found.contains(digest)
            }),
            Past::Version(version) => document["version"] == *version,
        }
    }

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

/// The document of a part as it was when something was named; `None` if what is shown of it names it still, or nothing ever did.
/// What is not shown at all is always told as it was.
pub(super) fn as_it_was(
    connection: &Connection,
    run: &str,
    part: &Part,
    is_shown: bool,
    past: &Past,
) -> rusqlite::Result<Option<Value>> {
    let mut events: Vec<Seen> = connection
        .prepare_cached("SELECT body FROM event WHERE run = ?1 ORDER BY seq")?
        .query_map([run], |row| Ok(Seen::read(row.get_ref(0)?.as_str()?)))?
        .filter_map(Result::transpose)
        .collect::<rusqlite::Result<_>>()?;
    events.retain(|event| part.is_below(event));
    let naming = events.iter().filter(|event| past.is_named_by(event));
    let then = naming.map(|event| event.time).max();
    if is_shown {
        let (_, counting) = fold(part, events.iter());
        if then.is_none() || counting.iter().any(|event| past.is_named_by(event)) {
            return Ok(None);
        }
        events.retain(|event| Some(event.time) <= then);
    } else {
        // An attempt that made nothing; it was over when the next one began.
        let begun = events.iter().filter(|event| event.kind == Kind::Started).map(|event| event.time);
        if let Some(next) = begun.filter(|time| then.is_some_and(|then| *time > then)).min() {
            events.retain(|event| event.time < next);
        }
    }
    let (facts, mut counting) = fold(part, events.iter());
    Ok(Some(Value::Object(document(run, part, &[facts], &mut counting))))
}

/// What a part is folded from, of these events of it and the parts above it alone; and those of them that count.
fn fold<'a>(part: &Part, events: impl Iterator<Item = &'a Seen>) -> (Facts, Vec<Seen>) {
    let mut facts = Facts::default();
    let mut counting: BTreeMap<(Part, Kind), &Seen> = BTreeMap::new();
    for event in events {
        facts.add(0, event, false);
        let counts = counting.entry((event.part(), event.kind)).or_insert(event);
        if counts.order() < event.order() {
            *counts = event;
        }
    }
    let mut counting: Vec<Seen> = counting.into_values().cloned().collect();
    if part.is_attempt() {
        keep_own(part, &mut counting);
    }
    (facts, counting)
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
