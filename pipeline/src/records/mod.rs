//! The records: every event that was accepted, append-only, in SQLite; runs and lineage are views on them.
//!
//! `view` brings the runs up to date in the transaction that adds an event (`seen`: what an event says, `document`: what is shown); `query` searches them, `lineage` walks from a
//! digest to all that is known of it, `openlineage` writes that in the words of others, `api` answers all of it over HTTP.
//! Only the table `event` is a record. Everything else can be made anew from it ([`rebuild`]).

pub mod api;
mod document;
pub mod lineage;
pub mod openlineage;
pub mod query;
mod seen;
mod source;
mod view;

use rusqlite::{Connection, OptionalExtension, Transaction, params};
use serde_json::Value;

use crate::event::Event;

pub use source::{RecordsError, Source, open};

/// Changes with the tables of the view and with what a document says; an older view is made anew.
const VIEW_VERSION: i64 = 3;

/// Makes the tables that are not there yet, and the runs anew if an older program made them.
///
/// # Errors
/// SQLite's own.
pub fn create_tables(connection: &Connection) -> rusqlite::Result<()> {
    connection.execute_batch(
        "CREATE TABLE IF NOT EXISTS event (
            seq INTEGER PRIMARY KEY AUTOINCREMENT,
            source TEXT NOT NULL,
            id TEXT NOT NULL,
            type TEXT NOT NULL,
            subject TEXT,
            run TEXT NOT NULL,
            arrived TEXT NOT NULL,
            cause INTEGER REFERENCES event(seq),
            body TEXT NOT NULL,
            UNIQUE (source, id)
        );
        CREATE INDEX IF NOT EXISTS event_run ON event (run);
        CREATE INDEX IF NOT EXISTS event_type ON event (type, subject);
        CREATE TABLE IF NOT EXISTS view_version (version INTEGER NOT NULL);",
    )?;
    let made: Option<i64> =
        connection.query_row("SELECT max(version) FROM view_version", [], |row| row.get(0))?;
    if made == Some(VIEW_VERSION) { Ok(()) } else { rebuild(connection) }
}

/// Adds an event and brings the views up to date. `cause` is the event that this one answers. `None` if there was one with the same
/// `source` and `id`.
///
/// # Errors
/// SQLite's own. An event that the views do not understand is none: it is kept, and they take of it what they can.
pub fn insert(transaction: &Transaction, event: &Event, cause: Option<i64>) -> rusqlite::Result<Option<i64>> {
    let arrived = jiff::Timestamp::now().to_string();
    let (run, body) = (event.run(), event.to_json());
    let seq = transaction
        .prepare_cached(
            "INSERT INTO event (source, id, type, subject, run, arrived, cause, body)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8) ON CONFLICT DO NOTHING RETURNING seq",
        )?
        .query_row(
            params![event.source, event.id, event.kind, event.subject, run, arrived, cause, body],
            |row| row.get(0),
        )
        .optional()?;
    if let Some(seq) = seq {
        view::update(transaction, seq, &run)?;
    }
    Ok(seq)
}

/// Makes all views anew from the events, as one change: a reader sees the old ones or the new ones.
///
/// # Errors
/// SQLite's own; then nothing has changed.
pub fn rebuild(connection: &Connection) -> rusqlite::Result<()> {
    connection.execute_batch("SAVEPOINT rebuild")?;
    let made = remake(connection);
    connection.execute_batch(match made {
        Ok(()) => "RELEASE rebuild",
        Err(_) => "ROLLBACK TO rebuild; RELEASE rebuild",
    })?;
    made
}

fn remake(connection: &Connection) -> rusqlite::Result<()> {
    view::create_tables(connection)?;
    let events: Vec<(i64, String)> = connection
        .prepare("SELECT seq, run FROM event ORDER BY seq")?
        .query_map([], |row| Ok((row.get(0)?, row.get(1)?)))?
        .collect::<rusqlite::Result<_>>()?;
    for (seq, run) in events {
        view::update(connection, seq, &run)?;
    }
    connection.execute("DELETE FROM view_version", [])?;
    connection.execute("INSERT INTO view_version (version) VALUES (?1)", [VIEW_VERSION])?;
    Ok(())
}

/// The documents of a run: one for each attempt at a model, or one without a model; and its events in the order of their
/// arrival, at most `limit`. Empty if there is no such run.
///
/// # Errors
/// SQLite's own.
pub fn run(connection: &Connection, run: &str, limit: usize) -> rusqlite::Result<(Vec<Value>, Vec<Value>)> {
    let json = |row: &rusqlite::Row| Ok(serde_json::from_str(row.get_ref(0)?.as_str()?).unwrap_or_default());
    let documents = connection
        .prepare_cached(
            "SELECT document FROM run WHERE run = ?1 AND document IS NOT NULL ORDER BY started, model, since, bundle",
        )?
        .query_map([run], json)?
        .collect::<rusqlite::Result<_>>()?;
    let events = connection
        .prepare_cached("SELECT body FROM event WHERE run = ?1 ORDER BY seq LIMIT ?2")?
        .query_map(params![run, i64::try_from(limit).unwrap_or(i64::MAX)], json)?
        .collect::<rusqlite::Result<_>>()?;
    Ok((documents, events))
}

#[cfg(test)]
mod tests;
