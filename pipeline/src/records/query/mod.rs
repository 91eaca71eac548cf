//! Searching runs: `accuracy >= 0.9 and dataset = "digits"`, sorted by any field.
//!
//! A query is parsed into a checked expression (`parse`, `field`), and every document is read only as far as the expression
//! asks (`select`), then judged in Rust (`judge`). Rejected: SQL over the documents with `json_extract`. It is no faster
//! (docs/history.md has the figures), rounds numbers from text in its own way, and sorts types among each other in its own way;
//! and here no text of a query ever comes near SQL.

mod field;
mod judge;
mod lex;
mod number;
mod parse;
mod select;

use std::cmp::Ordering;

use rusqlite::{Connection, params_from_iter};
use serde::Serialize;
use serde_json::Value;
use serde_json::value::RawValue;

use field::Field;
pub use field::Names;
use judge::Key;
pub use lex::QueryError;
pub use parse::{Expression, Sort, moment};
use select::Wanted;

use super::RecordsError;

/// Runs that one answer may hold.
pub const MAX_LIMIT: usize = 10_000;
/// What is answered if nobody says how many.
pub const DEFAULT_LIMIT: usize = 100;

/// What is asked for, as it was written; empty texts ask for nothing.
#[derive(Debug, Clone, Default)]
pub struct Query {
    pub model: Option<String>,
    pub filter: String,
    /// Fields, the most important first, separated by commas; `-` before one turns its order around.
    pub sort: String,
    /// Fields that are to be shown, separated by commas. They are only checked: documents are whole.
    pub columns: String,
    /// At most [`MAX_LIMIT`].
    pub limit: usize,
}

/// What a search finds.
#[derive(Debug, Serialize)]
pub struct Found {
    /// Documents.
    pub runs: Vec<Box<RawValue>>,
    /// More runs match than these.
    pub truncated: bool,
}

/// The documents of the runs that match, in the order asked for; newest first if none is.
///
/// # Errors
/// [`RecordsError::Query`] with the place of the mistake; [`RecordsError::Asked`] for more than [`MAX_LIMIT`];
/// [`RecordsError::Unknown`] for a model that no run has; SQLite's own.
pub fn search(connection: &Connection, query: &Query) -> Result<Found, RecordsError> {
    let names = Names::of(connection);
    let now = jiff::Timestamp::now();
    let filter = Expression::parse(&query.filter, &names, now)?;
    let sort = Sort::parse(&query.sort, &names)?;
    Shown::list(&query.columns, &names)?;
    let limit = query.limit;
    if limit > MAX_LIMIT {
        return Err(RecordsError::Asked(format!("limit: at most {MAX_LIMIT}, not {limit}")));
    }

    let condition = if query.model.is_some() { "AND model = ?1" } else { "" };
    let sql = format!(
        "SELECT rowid, document FROM run WHERE document IS NOT NULL {condition} 
         ORDER BY started DESC, run, model, since DESC, bundle"
    );
    let mut statement = connection.prepare_cached(&sql)?;
    let mut rows = statement.query(params_from_iter(&query.model))?;
    let mut found = Found { runs: Vec::new(), truncated: false };
    let mut keyed: Vec<(Vec<Option<Key>>, i64)> = Vec::new();
    let mut known = false;
    while let Some(row) = rows.next()? {
        known = true;
        let text = row.get_ref(1)?.as_str().map_err(rusqlite::Error::from)?;
        if !filter.matches(text) {
            continue;
        }
        match &sort {
            None if found.runs.len() == limit => {
                found.truncated = true;
                break;
            }
            None => found.runs.extend(RawValue::from_string(text.to_owned())),
            Some(sort) => {
                keyed.push((sort.keys(text), row.get(0)?));
                // What is kept follows the limit, not the number of runs.
                if keyed.len() > 2 * limit {
                    found.truncated |= sort.keep_first(&mut keyed, limit);
                }
            }
        }
    }
    if let Some(model) = query.model.as_deref().filter(|_| !known) {
        return Err(RecordsError::Unknown(format!("no run made a model {model:?}")));
    }
    let Some(sort) = sort else { return Ok(found) };
    found.truncated |= sort.keep_first(&mut keyed, limit);
    let mut document = connection.prepare_cached("SELECT document FROM run WHERE rowid = ?1")?;
    for (_, row) in keyed {
        let text: String = document.query_row([row], |row| row.get(0))?;
        found.runs.extend(RawValue::from_string(text));
    }
    Ok(found)
}

impl Expression {
    /// Does this document match?
    pub fn matches(&self, document: &str) -> bool {
        match &self.condition {
            None => true,
            Some(condition) => judge::holds(condition, &self.wanted.read(document)),
        }
    }
}

/// A field that is to be shown.
#[derive(Debug)]
pub struct Shown {
    /// As it was written.
    pub name: String,
    field: Field,
    wanted: Wanted,
}

impl Shown {
    /// The fields of `run,metrics.accuracy`.
    ///
    /// # Errors
    /// [`QueryError`] if one of them is none.
    pub fn list(text: &str, names: &Names<'_>) -> Result<Vec<Self>, QueryError> {
        let one = |(place, name): (usize, String)| {
            let mut wanted = Wanted::default();
            let field = parse::field(&name, names, &mut wanted);
            let field = field.map_err(|reason| QueryError::new(text, place, reason))?;
            Ok(Self { name, field, wanted })
        };
        lex::fields(text)?.into_iter().map(one).collect()
    }

    /// Its value in a document as text; JSON for groups and lists, empty if the run lacks it.
    pub fn text(&self, document: &Value) -> String {
        let values = self.wanted.pick(document);
        match judge::value(&self.field, &values) {
            None => String::new(),
            Some(Value::String(text)) => text.clone(),
            Some(value) => value.to_string(),
        }
    }
}

impl Sort {
    fn keys(&self, document: &str) -> Vec<Option<Key>> {
        let values = self.wanted.read(document);
        self.fields.iter().map(|(field, _)| judge::key(field, &values)).collect()
    }

    /// Sorts and keeps so many; were there more? Stable: equal ones stay newest first.
    fn keep_first(&self, keyed: &mut Vec<(Vec<Option<Key>>, i64)>, limit: usize) -> bool {
        keyed.sort_by(|(left, _), (right, _)| self.compare(left, right));
        let are_more = keyed.len() > limit;
        keyed.truncate(limit);
        are_more
    }

    /// What a run lacks stands last, whichever way the order goes.
    fn compare(&self, left: &[Option<Key>], right: &[Option<Key>]) -> Ordering {
        let pairs = left.iter().zip(right).zip(&self.fields);
        pairs
            .map(|((left, right), (_, direction))| match (left, right) {
                (Some(left), Some(right)) => direction.of(left.compare(right)),
                (left, right) => right.is_some().cmp(&left.is_some()),
            })
            .find(|order| order.is_ne())
            .unwrap_or(Ordering::Equal)
    }
}

#[cfg(test)]
mod tests;
