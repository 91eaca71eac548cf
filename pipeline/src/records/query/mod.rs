//! Searching runs: `accuracy >= 0.9 and dataset = "digits"`, sorted by any field.
//!
//! A query is parsed into a checked expression (`parse`, `field`), and every document is read only as far as the expression
//! asks (`select`), then judged in Rust (`judge`). Rejected: SQL over the documents with `json_extract`. It is slower
//! (docs/history.md has the figures), rounds numbers from text in its own way, and sorts types among each other in its own way;
//! and here no text of a query ever comes near SQL.

mod field;
mod judge;
mod lex;
mod parse;
mod select;

use std::cmp::Ordering;

use rusqlite::{Connection, params_from_iter};
use serde_json::Value;
use serde_json::value::RawValue;

use field::Field;
pub use field::Names;
use judge::Key;
pub use lex::QueryError;
pub use parse::{Expression, Sort};
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
    /// At most [`MAX_LIMIT`].
    pub limit: usize,
}

/// The documents of the runs that match, in the order asked for; newest first if none is.
///
/// # Errors
/// [`RecordsError::Query`] with the place of the mistake; SQLite's own.
pub fn search(connection: &Connection, query: &Query) -> Result<Vec<Box<RawValue>>, RecordsError> {
    let names = Names::known(connection)?;
    let now = jiff::Timestamp::now();
    let filter = Expression::parse(&query.filter, &names, now)?;
    let sort = Sort::parse(&query.sort, &names)?;
    let limit = query.limit.min(MAX_LIMIT);

    let condition = if query.model.is_some() { "AND model = ?1" } else { "" };
    let sql = format!(
        "SELECT rowid, document FROM run WHERE document IS NOT NULL {condition} ORDER BY started DESC, run, model"
    );
    let mut statement = connection.prepare_cached(&sql)?;
    let mut rows = statement.query(params_from_iter(&query.model))?;
    let mut found: Vec<Box<RawValue>> = Vec::new();
    let mut keyed: Vec<(Vec<Option<Key>>, i64)> = Vec::new();
    while let Some(row) = rows.next()? {
        if sort.is_none() && found.len() >= limit {
            break;
        }
        let text = row.get_ref(1)?.as_str().map_err(rusqlite::Error::from)?;
        if !filter.matches(text) {
            continue;
        }
        match &sort {
            None => found.extend(RawValue::from_string(text.to_owned())),
            Some(sort) => keyed.push((sort.keys(text), row.get(0)?)),
        }
    }
    let Some(sort) = sort else { return Ok(found) };
    // Stable: equal ones stay newest first.
    keyed.sort_by(|(left, _), (right, _)| sort.compare(left, right));
    let mut document = connection.prepare_cached("SELECT document FROM run WHERE rowid = ?1")?;
    for (_, row) in keyed.into_iter().take(limit) {
        let text: String = document.query_row([row], |row| row.get(0))?;
        found.extend(RawValue::from_string(text));
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
    field: Field,
    wanted: Wanted,
}

impl Shown {
    /// # Errors
    /// [`QueryError`] if it is no field.
    pub fn parse(name: &str, names: &Names) -> Result<Self, QueryError> {
        let mut wanted = Wanted::default();
        let field =
            parse::field(name, names, &mut wanted).map_err(|reason| QueryError::new(name, 0, reason))?;
        Ok(Self { field, wanted })
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
