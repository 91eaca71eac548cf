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
    /// Nothing to compare: a name for several fields.
    Group,
}

/// A field of a query: where its value is looked for, the first place that has one.
#[derive(Debug, Clone)]
pub(super) struct Field {
    pub(super) values: Values,
    pub(super) slots: Vec<Slot>,
}

use Values::{Group, Plain, Time};

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
    ("reasons", None, Plain),
    ("rule", None, Plain),
    ("reused", None, Plain),
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
    ("cpu_s", Some("cost.cpu_s"), Plain),
    ("wall_s", Some("cost.wall_s"), Plain),
    ("max_rss_mb", Some("cost.max_rss_mb"), Plain),
    ("rolledback", None, Group),
    ("parameters", None, Group),
    ("metrics", None, Group),
    ("candidate", None, Group),
    ("active", None, Group),
];

/// Groups whose fields runs name themselves.
const OPEN: &[&str] = &[
    "parameters",
    "metrics",
    "candidate",
    "active",
    "environment.packages",
    "cost.stages",
    "rolledback",
    "rule",
];

/// The metrics that runs have, for suggestions.
#[derive(Debug, Clone, Default)]
pub struct Names {
    metrics: Vec<String>,
}

impl Names {
    /// Of these records.
    ///
    /// # Errors
    /// SQLite's own.
    pub fn known(connection: &Connection) -> rusqlite::Result<Self> {
        // Beyond this a list is no help.
        let mut names = connection.prepare_cached("SELECT name FROM metric LIMIT 10000")?;
        let metrics = names.query_map([], |row| row.get(0))?.collect::<rusqlite::Result<_>>()?;
        Ok(Self { metrics })
    }

    /// The field with this name, its parts as they were written between dots. `Err` says why there is none.
    ///
    /// A name that is no field's is a metric's: the candidate's on the holdout, which the pipeline measured in the same way for
    /// every run; where there is none, the trainer's own.
    pub(super) fn field(&self, parts: &[String], wanted: &mut Wanted) -> Result<Field, String> {
        let name = parts.join(".");
        if let Some((name, path, values)) = FIELDS.iter().find(|(known, _, _)| *known == name) {
            let path: Vec<&str> = path.unwrap_or(name).split('.').collect();
            return Ok(Field { values: *values, slots: vec![wanted.slot(&path)] });
        }
        let parts: Vec<&str> = parts.iter().map(String::as_str).collect();
        if let [metric] = parts[..] {
            self.unlikely(metric, metric.to_owned(), FIELDS.iter().map(|(name, _, _)| *name))?;
            let slots = vec![wanted.slot(&["candidate", metric]), wanted.slot(&["metrics", metric])];
            return Ok(Field { values: Plain, slots });
        }
        let open = OPEN.iter().find(|open| name.starts_with(*open) && name[open.len()..].starts_with('.'));
        if let Some(open) = open {
            let own = &name[open.len() + 1..];
            if ["metrics", "candidate", "active"].contains(open) {
                self.unlikely(own, name.clone(), std::iter::empty())?;
            }
            return Ok(Field { values: Plain, slots: vec![wanted.slot(&parts)] });
        }
        let near = FIELDS.iter().map(|(name, _, _)| *name).min_by_key(|known| distance(&name, known));
        Err(match near.filter(|near| distance(&name, near) <= 1 + name.len() / 6) {
            Some(near) => format!("there is no field {name}; did you mean {near}?"),
            None => {
                let group = format!("{}.", parts[0]);
                let fields = FIELDS.iter().map(|(name, _, _)| *name).filter(|name| name.starts_with(&group));
                let fields: Vec<&str> = fields.collect();
                match fields[..] {
                    [] => format!(
                        "there is no field {name}; parameters.NAME and metrics.NAME ask for what a run names itself"
                    ),
                    _ => format!("there is no field {name}; there are {}", fields.join(", ")),
                }
            }
        })
    }

    /// A metric that no run has, but whose name is almost that of one, or of a field, is a slip: an empty answer would hide it.
    fn unlikely<'a>(
        &'a self,
        metric: &str,
        written: String,
        fields: impl Iterator<Item = &'a str>,
    ) -> Result<(), String> {
        if metric.chars().count() < 4 || self.metrics.iter().any(|known| known == metric) {
            return Ok(());
        }
        let near = fields
            .chain(self.metrics.iter().map(String::as_str))
            .min_by_key(|known| distance(metric, known))
            .filter(|known| distance(metric, known) <= 1 + metric.len() / 8);
        match near {
            Some(near) => Err(format!("no run has {written}; did you mean {near}?")),
            None => Ok(()),
        }
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
