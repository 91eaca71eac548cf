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
use serde_json::Value;

use super::document::{Facts, document, version};
use super::seen::{Kind, NONE, Part, Seen, time};

/// Kinds of turns.
const DEPLOYED: &str = "deployed";
const ROLLED_BACK: &str = "rolledback";

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
