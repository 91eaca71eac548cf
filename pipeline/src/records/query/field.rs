//! The fields of a run by the names under which a query may ask for them.

use rusqlite::Connection;

use super::select::{Slot, Wanted};

/// What the values of a field are, as far as a query must know.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Values {
    /// Text or number, whatever a run has.
    Plain,
    /// An RFC 3339 time.
    Time,
    Flag,
    /// Is looked into, not compared.
    List,
    /// Nothing to compare: a name for several fields.
    Group,
}

/// A field of a query: where its value is looked for, the first place that has one.
#[derive(Debug, Clone)]
pub(super) struct Field {
    pub(super) values: Values,
    pub(super) slots: Vec<Slot>,
}

use Values::{Flag, Group, List, Plain, Time};

/// Name in a query, path in a document if it is another.
const FIELDS: &[(&str, Option<&str>, Values)] = &[
    ("run", None, Plain),
    ("state", None, Plain),
    ("model", None, Plain),
    ("version", None, Plain),
    ("generation", None, Plain),
    ("digest", None, Plain),
    ("previous_digest", None, Plain),
    ("verdict", None, Plain),
    ("reasons", None, List),
    ("rule", None, Plain),
    ("reused", None, Flag),
    ("who", None, Plain),
    ("events", None, Plain),
    ("started", None, Time),
    ("finished", None, Time),
    ("since", None, Time),
    ("seconds", None, Plain),
    ("dataset", Some("dataset.name"), Plain),
    ("dataset.name", None, Plain),
    ("dataset.digest", None, Plain),
    ("dataset.file", None, Plain),
    ("dataset.rows", None, Plain),
    ("dataset.size", None, Plain),
    ("dataset.flagged", None, Plain),
    ("dataset.drift", None, Plain),
    ("dataset.origin", None, Plain),
    ("dataset.policy", None, Plain),
    ("file", Some("dataset.file"), Plain),
    ("rows", Some("dataset.rows"), Plain),
    ("flagged", Some("dataset.flagged"), Plain),
    ("drift", Some("dataset.drift"), Plain),
    ("origin", Some("dataset.origin"), Plain),
    ("code", Some("code.digest"), Plain),
    ("code.digest", None, Plain),
    ("code.commit", None, Plain),
    ("commit", Some("code.commit"), Plain),
    ("environment", Some("environment.digest"), Plain),
    ("environment.digest", None, Plain),
    ("environment.python", None, Plain),
    ("environment.packages", None, Group),
    ("python", Some("environment.python"), Plain),
    ("bundle", Some("bundle.digest"), Plain),
    ("bundle.digest", None, Plain),
    ("bundle.size", None, Plain),
    ("report", Some("report.digest"), Plain),
    ("report.digest", None, Plain),
    ("training", Some("training.digest"), Plain),
    ("training.digest", None, Plain),
    ("holdout", Some("holdout.digest"), Plain),
    ("holdout.digest", None, Plain),
    ("cost", None, Group),
    ("cost.cpu_s", None, Plain),
    ("cost.wall_s", None, Plain),
    ("cost.max_rss_mb", None, Plain),
    ("cost.stages", None, Group),
    ("cost.stages.validate", None, Group),
    ("cost.stages.validate.cpu_s", None, Plain),
    ("cost.stages.validate.wall_s", None, Plain),
    ("cost.stages.validate.max_rss_mb", None, Plain),
    ("cost.stages.train", None, Group),
    ("cost.stages.train.cpu_s", None, Plain),
    ("cost.stages.train.wall_s", None, Plain),
    ("cost.stages.train.max_rss_mb", None, Plain),
    ("cost.stages.evaluate", None, Group),
    ("cost.stages.evaluate.cpu_s", None, Plain),
    ("cost.stages.evaluate.wall_s", None, Plain),
    ("cost.stages.evaluate.max_rss_mb", None, Plain),
    ("cost.stages.deploy", None, Group),
    ("cost.stages.deploy.cpu_s", None, Plain),
    ("cost.stages.deploy.wall_s", None, Plain),
    ("cost.stages.deploy.max_rss_mb", None, Plain),
    ("cpu_s", Some("cost.cpu_s"), Plain),
    ("wall_s", Some("cost.wall_s"), Plain),
    ("max_rss_mb", Some("cost.max_rss_mb"), Plain),
    ("rolledback", None, Group),
    ("rolledback.version", None, Plain),
    ("rolledback.generation", None, Plain),
    ("rolledback.digest", None, Plain),
    ("parameters", None, Group),
    ("metrics", None, Group),
    ("candidate", None, Group),
    ("active", None, Group),
];

/// Groups whose fields runs name themselves.
const OPEN: &[&str] = &["parameters", "metrics", "candidate", "active", "environment.packages", "rule"];

/// Metrics that are looked through for a suggestion; beyond this a list is no help.
const LOOKED_AT: usize = 10_000;

/// The names that runs have given, to tell a slip from a name. Without records every name is taken.
#[derive(Debug, Clone, Copy, Default)]
pub struct Names<'a> {
    records: Option<&'a Connection>,
}

impl<'a> Names<'a> {
    /// Of these records.
    pub fn of(records: &'a Connection) -> Self {
        Self { records: Some(records) }
    }

    /// The field with this name, its parts as they were written between dots. `Err` says why there is none.
    ///
    /// A name that is no field's is a metric's: the candidate's on the holdout, which the pipeline measured in the same way for
    /// every run; where there is none, the trainer's own.
    pub(super) fn field(self, parts: &[String], wanted: &mut Wanted) -> Result<Field, String> {
        let name = parts.join(".");
        if let Some((name, path, values)) = FIELDS.iter().find(|(known, _, _)| *known == name) {
            let path: Vec<&str> = path.unwrap_or(name).split('.').collect();
            return Ok(Field { values: *values, slots: vec![wanted.slot(&path)] });
        }
        let open = OPEN.iter().find(|open| name.starts_with(*open) && name[open.len()..].starts_with('.'));
        if let Some(open) = open {
            let own = &name[open.len() + 1..];
            // Names have dots too (`val.auc`, `ruamel.yaml`), and metrics have nothing but names.
            let mut flat: Vec<&str> = open.split('.').collect();
            flat.push(own);
            let flat = wanted.slot(&flat);
            if ["metrics", "candidate", "active"].contains(open) {
                self.unlikely(own, &name, std::iter::empty())?;
                return Ok(Field { values: Plain, slots: vec![flat] });
            }
            let nested: Vec<&str> = parts.iter().map(String::as_str).collect();
            return Ok(Field { values: Plain, slots: vec![wanted.slot(&nested), flat] });
        }
        if parts.len() > 1 && !self.may_have(&name) {
            return Err(no_field(&name));
        }
        self.unlikely(&name, &name, FIELDS.iter().map(|(name, _, _)| *name))?;
        let slots = vec![wanted.slot(&["candidate", &name]), wanted.slot(&["metrics", &name])];
        Ok(Field { values: Plain, slots })
    }

    /// Has any run this metric?
    fn may_have(self, metric: &str) -> bool {
        let Some(records) = self.records else { return true };
        // What cannot be read is said by the search itself.
        let found = records.prepare_cached("SELECT 1 FROM metric WHERE name = ?1");
        found.and_then(|mut found| found.exists([metric])).unwrap_or(true)
    }

    /// A metric that no run has, but whose name is almost that of one, or of a field, is a slip: an empty answer would hide it.
    fn unlikely(
        self,
        metric: &str,
        written: &str,
        fields: impl Iterator<Item = &'static str>,
    ) -> Result<(), String> {
        let Some(records) = self.records.filter(|_| !self.may_have(metric)) else { return Ok(()) };
        let metrics = || -> rusqlite::Result<Vec<String>> {
            let mut names = records.prepare_cached("SELECT name FROM metric LIMIT ?1")?;
            names.query_map([LOOKED_AT as i64], |row| row.get(0))?.collect()
        };
        let lower = metric.to_lowercase();
        let far = if metric.chars().count() < 4 { 0 } else { 1 + metric.len() / 8 };
        let near = fields
            .map(str::to_owned)
            .chain(metrics().unwrap_or_default())
            .map(|known| (distance(&lower, &known.to_lowercase()), known))
            .min()
            .filter(|(distance, _)| *distance <= far);
        match near {
            Some((_, near)) => Err(format!("no run has {written}; did you mean {near}?")),
            None => Ok(()),
        }
    }
}

fn no_field(name: &str) -> String {
    let fields = || FIELDS.iter().map(|(name, _, _)| *name);
    let near = fields().min_by_key(|known| distance(name, known));
    if let Some(near) = near.filter(|near| distance(name, near) <= 1 + name.len() / 6) {
        return format!("there is no field {name}; did you mean {near}?");
    }
    let group = format!("{}.", name.split('.').next().unwrap_or_default());
    let fields: Vec<&str> = fields().filter(|name| name.starts_with(&group)).collect();
    match fields[..] {
        [] => format!(
            "there is no field {name}; parameters.NAME and metrics.NAME ask for what a run names itself"
        ),
        _ => format!("there is no field {name}; there are {}", fields.join(", ")),
    }
}

/// Letters to insert, remove, replace or swap with their neighbour to make one word of the other (optimal string alignment);
/// more than any suggestion needs for words of very different length.
fn distance(left: &str, right: &str) -> usize {
    let (left, right): (Vec<char>, Vec<char>) = (left.chars().collect(), right.chars().collect());
    if left.len().abs_diff(right.len()) > 8 || left.len() > 64 {
        return usize::MAX;
    }
    let mut rows: Vec<Vec<usize>> = vec![(0..=right.len()).collect()];
    for i in 1..=left.len() {
        let mut row = vec![i];
        for j in 1..=right.len() {
            let other = usize::from(left[i - 1] != right[j - 1]);
            let mut best = (rows[i - 1][j] + 1).min(row[j - 1] + 1).min(rows[i - 1][j - 1] + other);
            if i > 1 && j > 1 && left[i - 1] == right[j - 2] && left[i - 2] == right[j - 1] {
                best = best.min(rows[i - 2][j - 2] + 1);
            }
            row.push(best);
        }
        rows.push(row);
    }
    rows[left.len()][right.len()]
}
