//! What runs again because its code is another: decided once, at the start of the engine.
//!
//! For each trigger and each subject the newest event that was done is looked at. If it was done by another revision of the
//! target, it is delivered again. Where one such event follows from another, only the first is: the second comes
//! anew by itself, and would otherwise run twice.

use std::collections::{BTreeSet, HashSet};

use rusqlite::{OptionalExtension, Transaction, params};

use super::deliveries::repeat;
use super::router::{Route, Router, Target};

/// An event that is delivered again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Rerun {
    pub(crate) trigger: String,
    pub(crate) lane: usize,
    pub(crate) seq: i64,
    pub(crate) subject: Option<String>,
    pub(crate) old: String,
    pub(crate) new: String,
}

/// Makes the deliveries and gives them.
pub(crate) fn rerun(transaction: &Transaction, router: &Router) -> rusqlite::Result<Vec<Rerun>> {
    let mut found = Vec::new();
    for route in &router.routes {
        if matches!(router.lanes[route.to.lane].target, Target::Service(_) | Target::Job(_)) {
            found.extend(outdated(transaction, route)?);
        }
    }
    let again: HashSet<(String, i64)> =
        found.iter().map(|rerun| (rerun.trigger.clone(), rerun.seq)).collect();
    let mut made = Vec::new();
    for rerun in found {
        if let Some(route) = router.route(&rerun.trigger)
            && !follows_from_one(transaction, &again, rerun.seq)?
            && repeat(transaction, router, route, rerun.seq)?
        {
            made.push(rerun);
        }
    }
    Ok(made)
}

/// The newest event of each subject, if another revision did it last.
fn outdated(transaction: &Transaction, route: &Route) -> rusqlite::Result<Vec<Rerun>> {
    let rows: Vec<(i64, Option<String>)> = transaction
        .prepare(
            "SELECT max(event.seq), event.subject FROM delivery JOIN event ON event.seq = delivery.event
             WHERE trigger = ?1 AND kind = 'event' AND state <> 'dead' GROUP BY event.subject",
        )?
        .query_map(params![route.name], |row| Ok((row.get(0)?, row.get(1)?)))?
        .collect::<rusqlite::Result<_>>()?;
    let mut found = Vec::new();
    for (seq, subject) in rows {
        // None if the newest is pending: then it goes to the present revision anyhow.
        let old: Option<String> = transaction
            .prepare_cached(
                "SELECT revision FROM delivery WHERE event = ?1 AND trigger = ?2 AND kind = 'event' AND state = 'done'
                 ORDER BY changed DESC, id DESC LIMIT 1",
            )?
            .query_row(params![seq, route.name], |row| row.get(0))
            .optional()?;
        if let Some(old) = old
            && old != route.revision
        {
            found.push(Rerun {
                trigger: route.name.clone(),
                lane: route.to.lane,
                seq,
                subject,
                old,
                new: route.revision.clone(),
            });
        }
    }
    Ok(found)
}

/// Whether an event came, over any number of functions, out of a delivery that is made again.
fn follows_from_one(
    transaction: &Transaction,
    again: &HashSet<(String, i64)>,
    seq: i64,
) -> rusqlite::Result<bool> {
    let mut child = seq;
    // Causes run backwards in time, so this ends; the set is for a database that somebody has edited.
    let mut seen = BTreeSet::new();
    while seen.insert(child) {
        let parent: Option<(i64, String)> = transaction
            .prepare_cached("SELECT cause, source FROM event WHERE seq = ?1 AND cause IS NOT NULL")?
            .query_row(params![child], |row| Ok((row.get(0)?, row.get(1)?)))
            .optional()?;
        let Some((parent, source)) = parent else { return Ok(false) };
        let job = source.strip_prefix("/baton/jobs/").map(|name| format!("job/{name}"));
        let triggers: Vec<String> = transaction
            .prepare_cached("SELECT trigger FROM delivery WHERE event = ?1 AND (reply = ?2 OR lane = ?3)")?
            .query_map(params![parent, child, job], |row| row.get(0))?
            .collect::<rusqlite::Result<_>>()?;
        if triggers.into_iter().any(|trigger| again.contains(&(trigger, parent))) {
            return Ok(true);
        }
        child = parent;
    }
    Ok(false)
}
