//! The records: every event that was accepted, append-only, in SQLite; runs and lineage are views on them.

use rusqlite::{Connection, OptionalExtension, Transaction, params};

use crate::event::Event;

/// Makes the tables that are not there yet.
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
        CREATE INDEX IF NOT EXISTS event_type ON event (type, subject);",
    )
}

/// Adds an event and brings the views up to date. `cause` is the event that this one answers. `None` if there was one with the same
/// `source` and `id`.
///
/// # Errors
/// SQLite's own.
pub fn insert(transaction: &Transaction, event: &Event, cause: Option<i64>) -> rusqlite::Result<Option<i64>> {
    let arrived = jiff::Timestamp::now().to_string();
    transaction
        .query_row(
            "INSERT INTO event (source, id, type, subject, run, arrived, cause, body) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)
             ON CONFLICT DO NOTHING RETURNING seq",
            params![
                event.source,
                event.id,
                event.kind,
                event.subject,
                event.run(),
                arrived,
                cause,
                event.to_json().to_string()
            ],
            |row| row.get(0),
        )
        .optional()
}
