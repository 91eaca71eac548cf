//! Deliveries in the database: every change of theirs is a function here, to be run in one transaction.
//!
//! A delivery is (event, trigger, revision of the target) and, for one that was done and is asked for again, a number. What is in flight
//! is known to memory only, so after a crash it is pending, and is delivered again. The answer of a function, the deliveries
//! that follow from it and the end of its own delivery are one transaction, so each has its effect once.

use std::collections::{BTreeMap, BTreeSet, HashSet};

use base64::Engine as _;
use rusqlite::{Connection, OptionalExtension, Transaction, params};
use serde::Deserialize;
use serde_json::json;

use super::call::Failure;
use super::router::{Address, Route, Router};
use crate::event::Event;
use crate::records;

/// The attribute of an event that is delivered again on purpose: another code, or somebody asked. Part of the id of the reply.
pub(crate) use crate::event::REVISION;
/// Functions that an event and those before it may go through: a pipeline that feeds itself ends here, as with Knative.
pub(crate) const MAX_HOPS: u32 = 255;

/// Milliseconds since 1970.
pub(crate) fn now() -> i64 {
    jiff::Timestamp::now().as_millisecond()
}

/// An event that was taken: which lanes have work now.
#[derive(Debug, Clone, Default)]
pub(crate) struct Accepted {
    /// Its number, or of the one that was there before.
    pub(crate) seq: i64,
    pub(crate) is_new: bool,
    pub(crate) lanes: BTreeSet<usize>,
}

/// A delivery whose time has come.
#[derive(Debug, Clone)]
pub(crate) struct Due {
    pub(crate) id: i64,
    pub(crate) seq: i64,
    pub(crate) trigger: String,
    pub(crate) kind: Kind,
    pub(crate) attempt: u32,
    pub(crate) hops: u32,
    /// As it is to be sent.
    pub(crate) event: Event,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// An event to a trigger's subscriber.
    Event,
    /// An event that was given up, to the dead letter sink.
    DeadLetter,
}

impl Kind {
    fn name(self) -> &'static str {
        match self {
            Kind::Event => "event",
            Kind::DeadLetter => "dead",
        }
    }
}

/// Stores an event and one delivery for each trigger that takes it; nothing if it is there already.
pub(crate) fn accept(
    transaction: &Transaction,
    router: &Router,
    event: &Event,
) -> rusqlite::Result<Accepted> {
    match job_behind(transaction, event)? {
        Some((cause, hops)) => insert(transaction, router, event, Some(cause), hops.saturating_add(1)),
        None => insert(transaction, router, event, None, 0),
    }
}

/// The event that a job answers: the job says its name in `source`, and copies the run.
fn job_behind(connection: &Connection, event: &Event) -> rusqlite::Result<Option<(i64, u32)>> {
    let Some(sink) = event.source.strip_prefix("/baton/jobs/") else { return Ok(None) };
    connection
        .prepare_cached(
            "SELECT job.event, coalesce(max(delivery.hops), 0) FROM job
             JOIN event ON event.seq = job.event
             LEFT JOIN delivery ON delivery.event = job.event AND delivery.lane = 'job/' || job.sink
             WHERE job.sink = ?1 AND event.run = ?2
             GROUP BY job.name ORDER BY job.started IS NULL, job.started DESC LIMIT 1",
        )?
        .query_row(params![sink, event.run()], |row| Ok((row.get(0)?, row.get(1)?)))
        .optional()
}

/// As [`accept`], for an event that the engine sends in the place of a job.
pub(crate) fn accept_for_job(
    transaction: &Transaction,
    router: &Router,
    event: &Event,
    job: &str,
) -> rusqlite::Result<Accepted> {
    let (cause, hops): (i64, u32) = transaction.query_row(
        "SELECT job.event, coalesce(max(hops), 0) FROM job
         LEFT JOIN delivery ON delivery.event = job.event AND delivery.lane = 'job/' || job.sink WHERE job.name = ?1",
        params![job],
        |row| Ok((row.get(0)?, row.get(1)?)),
    )?;
    insert(transaction, router, event, Some(cause), hops.saturating_add(1))
}

fn insert(
    transaction: &Transaction,
    router: &Router,
    event: &Event,
    cause: Option<i64>,
    hops: u32,
) -> rusqlite::Result<Accepted> {
    let Some(seq) = records::insert(transaction, event, cause)? else {
        let seq = transaction
            .prepare_cached("SELECT seq FROM event WHERE source = ?1 AND id = ?2")?
            .query_row(params![event.source, event.id], |row| row.get(0))?;
        return Ok(Accepted { seq, ..Accepted::default() });
    };
    let mut accepted = Accepted { seq, is_new: true, lanes: BTreeSet::new() };
    for route in router.matching(event) {
        create(transaction, router, &New { route, seq, hops, ..New::of(route, seq) })?;
        accepted.lanes.insert(route.to.lane);
    }
    Ok(accepted)
}

/// A delivery to be made.
struct New<'a> {
    route: &'a Route,
    seq: i64,
    kind: Kind,
    again: u32,
    mark: Option<&'a str>,
    reasons: Option<String>,
    hops: u32,
}

impl<'a> New<'a> {
    fn of(route: &'a Route, seq: i64) -> Self {
        Self { route, seq, kind: Kind::Event, again: 0, mark: None, reasons: None, hops: 0 }
    }
}

/// `false` if there is one.
fn create(transaction: &Transaction, router: &Router, new: &New) -> rusqlite::Result<bool> {
    let to = match new.kind {
        Kind::Event => &new.route.to,
        Kind::DeadLetter => new.route.dead_letter.as_ref().unwrap_or(&new.route.to),
    };
    let rows = transaction
        .prepare_cached(
            "INSERT INTO delivery (event, trigger, kind, revision, again, mark, reasons, lane, hops, next_at, changed)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?10) ON CONFLICT DO NOTHING",
        )?
        .execute(params![
            new.seq,
            new.route.name,
            new.kind.name(),
            new.route.revision,
            new.again,
            new.mark,
            new.reasons,
            router.lanes[to.lane].key,
            new.hops,
            now()
        ])?;
    Ok(rows > 0)
}

/// What is found in a lane.
#[derive(Debug, Default)]
pub(crate) struct Found {
    pub(crate) due: Vec<Due>,
    /// Deliveries whose event cannot be read, and why.
    pub(crate) unreadable: Vec<(i64, String)>,
    /// When the next is due.
    pub(crate) next: Option<i64>,
}

/// The deliveries of a lane whose time has come and that are not in flight, at most `limit`, those that wait longest first.
pub(crate) fn due(
    connection: &Connection,
    lane: &str,
    in_flight: &[i64],
    limit: usize,
) -> rusqlite::Result<Found> {
    let now = now();
    // Those in flight are still pending, and may be the first; of them only the index is read.
    let waiting: Vec<i64> = connection
        .prepare_cached(
            "SELECT id FROM delivery WHERE lane = ?1 AND state = 'pending' AND next_at <= ?2 ORDER BY next_at, id LIMIT ?3",
        )?
        .query_map(params![lane, now, (in_flight.len() + limit) as i64], |row| row.get(0))?
        .collect::<rusqlite::Result<_>>()?;
    let known: HashSet<i64> = in_flight.iter().copied().collect();
    let free = waiting.into_iter().filter(|id| !known.contains(id)).take(limit);
    let mut found = Found::default();
    for id in free {
        match read(connection, id) {
            Ok(due) => found.due.push(due),
            Err(rusqlite::Error::FromSqlConversionFailure(_, _, error)) => {
                found.unreadable.push((id, error.to_string()));
            }
            Err(error) => return Err(error),
        }
    }
    found.next = connection
        .prepare_cached(
            "SELECT min(next_at) FROM delivery WHERE lane = ?1 AND state = 'pending' AND next_at > ?2",
        )?
        .query_row(params![lane, now], |row| row.get(0))?;
    Ok(found)
}

/// Gives up what no attempt can be made of, so that it holds up no other.
pub(crate) fn bury(transaction: &Transaction, id: i64, error: &str) -> rusqlite::Result<()> {
    transaction.execute(
        "UPDATE delivery SET state = 'dead', changed = ?2, last_error = 'the event cannot be read: ' || ?3 WHERE id = ?1",
        params![id, now(), error],
    )?;
    Ok(())
}

/// A delivery with its event as the target gets it.
pub(crate) fn read(connection: &Connection, id: i64) -> rusqlite::Result<Due> {
    connection
        .prepare_cached(
            "SELECT event, trigger, kind, attempt, hops, mark, reasons, body FROM delivery
             JOIN event ON event.seq = delivery.event WHERE delivery.id = ?1",
        )?
        .query_row(params![id], |row| {
            let is_dead_letter = row.get_ref(2)?.as_str()? == Kind::DeadLetter.name();
            let unreadable = |column, error: Box<dyn std::error::Error + Send + Sync>| {
                rusqlite::Error::FromSqlConversionFailure(column, rusqlite::types::Type::Text, error)
            };
            let mut event =
                Event::from_json(row.get_ref(7)?.as_bytes()?).map_err(|error| unreadable(7, error.into()))?;
            if let Some(mark) = row.get(5)? {
                event.extensions.insert(REVISION.to_owned(), mark);
            }
            if let Some(reasons) = row.get_ref(6)?.as_str_or_null()? {
                let reasons: BTreeMap<String, String> =
                    serde_json::from_str(reasons).map_err(|error| unreadable(6, error.into()))?;
                event.extensions.extend(reasons);
            }
            Ok(Due {
                id,
                seq: row.get(0)?,
                trigger: row.get(1)?,
                kind: if is_dead_letter { Kind::DeadLetter } else { Kind::Event },
                attempt: row.get(3)?,
                hops: row.get(4)?,
                event,
            })
        })
}

/// What tells a dead letter sink why, in Knative's attributes; a code of -1 means that there was no answer, and the data is base64 of at
/// most 1024 characters.
fn reasons(lane: &str, failure: &Failure) -> String {
    let data = if failure.body.is_empty() { failure.text.as_bytes() } else { &failure.body };
    let data = base64::engine::general_purpose::STANDARD.encode(&data[..data.len().min(768)]);
    let code = failure.status.map_or_else(|| "-1".to_owned(), |status| status.to_string());
    json!({ "knativeerrordest": lane, "knativeerrorcode": code, "knativeerrordata": data }).to_string()
}

/// The function is done: its reply, what follows from it, and the end of the delivery.
pub(crate) fn done(
    transaction: &Transaction,
    router: &Router,
    due: &Due,
    status: Option<u16>,
    reply: Option<&Event>,
) -> rusqlite::Result<Accepted> {
    if !is_pending(transaction, due.id)? {
        return Ok(Accepted::default());
    }
    if reply.is_some() && due.hops >= MAX_HOPS {
        let text = format!(
            "the reply was dropped: this run has gone through {MAX_HOPS} functions, so it feeds itself"
        );
        return dead(transaction, router, due, &Failure::new(text));
    }
    let accepted = match reply {
        Some(reply) => insert(transaction, router, reply, Some(due.seq), due.hops + 1)?,
        None => Accepted::default(),
    };
    if let Some(reply) = reply
        && !accepted.is_new
    {
        tracing::warn!(
            trigger = due.trigger,
            event = due.event.id,
            source = reply.source,
            id = reply.id,
            "the reply is ignored: an event of this source and id is there already"
        );
    }
    transaction
        .prepare_cached(
            "UPDATE delivery SET state = 'done', reply = ?2, last_status = ?3, last_error = NULL, changed = ?4
             WHERE id = ?1",
        )?
        .execute(params![due.id, reply.map(|_| accepted.seq), status, now()])?;
    Ok(accepted)
}

/// The attempt failed; the next is at `next_at`.
pub(crate) fn later(
    transaction: &Transaction,
    id: i64,
    failure: &Failure,
    next_at: i64,
) -> rusqlite::Result<()> {
    transaction
        .prepare_cached(
            "UPDATE delivery SET attempt = attempt + 1, next_at = ?2, last_error = ?3, last_status = ?4, changed = ?5
             WHERE id = ?1 AND state = 'pending'",
        )?
        .execute(params![id, next_at, failure.text, failure.status, now()])?;
    Ok(())
}

/// The delivery is given up; the dead letter sink, if there is one, is told.
pub(crate) fn dead(
    transaction: &Transaction,
    router: &Router,
    due: &Due,
    failure: &Failure,
) -> rusqlite::Result<Accepted> {
    if !is_pending(transaction, due.id)? {
        return Ok(Accepted::default());
    }
    transaction
        .prepare_cached(
            "UPDATE delivery SET state = 'dead', attempt = attempt + 1, last_error = ?2, last_status = ?3, changed = ?4
             WHERE id = ?1",
        )?
        .execute(params![due.id, failure.text, failure.status, now()])?;
    let mut accepted = Accepted::default();
    if due.kind == Kind::Event
        && let Some(route) = router.route(&due.trigger)
        && let Some(Address { lane, .. }) = route.dead_letter
    {
        let again = 1 + last(transaction, route, due.seq, Kind::DeadLetter)?.unwrap_or(0);
        let new = New {
            kind: Kind::DeadLetter,
            reasons: Some(reasons(&router.lanes[route.to.lane].key, failure)),
            again,
            hops: due.hops + 1,
            ..New::of(route, due.seq)
        };
        create(transaction, router, &new)?;
        accepted.lanes.insert(lane);
    }
    Ok(accepted)
}

fn is_pending(transaction: &Transaction, id: i64) -> rusqlite::Result<bool> {
    transaction
        .prepare_cached("SELECT state = 'pending' FROM delivery WHERE id = ?1")?
        .query_row(params![id], |row| row.get(0))
}

/// The highest number of a delivery of this kind, event and trigger, to the present revision; `None` if there is none.
fn last(transaction: &Transaction, route: &Route, seq: i64, kind: Kind) -> rusqlite::Result<Option<u32>> {
    transaction
        .prepare_cached(
            "SELECT max(again) FROM delivery WHERE event = ?1 AND trigger = ?2 AND kind = ?3 AND revision = ?4",
        )?
        .query_row(params![seq, route.name, kind.name(), route.revision], |row| row.get(0))
}

/// Which deliveries are wanted again; `None` does not restrict.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Requeue {
    pub(crate) trigger: Option<String>,
    pub(crate) source: Option<String>,
    pub(crate) id: Option<String>,
}

/// Makes dead deliveries pending, for the present target and revision of their triggers. With all three of trigger, source and id also one
/// that is done: it is made again, under a new number. Gives how many.
pub(crate) fn requeue(
    transaction: &Transaction,
    router: &Router,
    wanted: &Requeue,
) -> rusqlite::Result<(usize, BTreeSet<usize>)> {
    let dead: Vec<(i64, i64, String, bool, String)> = transaction
        .prepare_cached(
            "SELECT id, event, trigger, kind = 'dead', revision FROM delivery
             WHERE state = 'dead' AND (?1 IS NULL OR trigger = ?1)
             AND ((?2 IS NULL AND ?3 IS NULL) OR event IN
                  (SELECT seq FROM event WHERE (?2 IS NULL OR source = ?2) AND (?3 IS NULL OR id = ?3)))",
        )?
        .query_map(params![wanted.trigger, wanted.source, wanted.id], |row| {
            Ok((row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?, row.get(4)?))
        })?
        .collect::<rusqlite::Result<_>>()?;
    let (mut number, mut woken) = (0, BTreeSet::new());
    for (id, seq, trigger, is_dead_letter, revision) in dead {
        let Some(route) = router.route(&trigger) else { continue };
        let (kind, to) = match is_dead_letter {
            true => (Kind::DeadLetter, route.dead_letter.as_ref()),
            false => (Kind::Event, Some(&route.to)),
        };
        let Some(to) = to else { continue };
        // Another revision may have done it meanwhile; it is asked for all the same.
        let again = match revision == route.revision {
            true => None,
            false => last(transaction, route, seq, kind)?.map(|last| last + 1),
        };
        transaction
            .prepare_cached(
                "UPDATE delivery SET state = 'pending', attempt = 0, next_at = ?2, changed = ?2, lane = ?3, revision = ?4,
                 again = coalesce(?5, again), mark = CASE WHEN kind = 'dead' THEN mark WHEN ?5 > 0 THEN ?4 || '-' || ?5
                 WHEN mark IS NULL OR revision = ?4 THEN mark ELSE ?4 END WHERE id = ?1",
            )?
            .execute(params![id, now(), router.lanes[to.lane].key, route.revision, again])?;
        number += 1;
        woken.insert(to.lane);
    }
    if number == 0
        && let Requeue { trigger: Some(trigger), source: Some(source), id: Some(id) } = wanted
        && let Some(route) = router.route(trigger)
        && let Some(seq) = transaction
            .query_row("SELECT seq FROM event WHERE source = ?1 AND id = ?2", params![source, id], |row| {
                row.get(0)
            })
            .optional()?
        && repeat(transaction, router, route, seq)?
    {
        number = 1;
        woken.insert(route.to.lane);
    }
    Ok((number, woken))
}

/// Delivers an event again under the present revision: the first time marked with the revision, after that with a number too.
/// `false` if such a delivery is pending already.
pub(crate) fn repeat(
    transaction: &Transaction,
    router: &Router,
    route: &Route,
    seq: i64,
) -> rusqlite::Result<bool> {
    let last: Option<(u32, String, u32)> = transaction
        .prepare_cached(
            "SELECT again, state, hops FROM delivery
             WHERE event = ?1 AND trigger = ?2 AND kind = 'event' AND revision = ?3 ORDER BY again DESC LIMIT 1",
        )?
        .query_row(params![seq, route.name, route.revision], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)))
        .optional()?;
    match last {
        None => create(transaction, router, &New { mark: Some(&route.revision), ..New::of(route, seq) }),
        Some((again, state, hops)) if state == "done" => {
            let mark = format!("{}-{}", route.revision, again + 1);
            create(
                transaction,
                router,
                &New { again: again + 1, mark: Some(&mark), hops, ..New::of(route, seq) },
            )
        }
        Some(_) => Ok(false),
    }
}

/// At the start: what is pending from earlier manifests goes to the present target and revision of its trigger; what has no trigger
/// any more is dead. Gives how many died.
pub(crate) fn adopt(transaction: &Transaction, router: &Router) -> rusqlite::Result<usize> {
    let names: Vec<&str> = router.routes.iter().map(|route| route.name.as_str()).collect();
    let mut died = 0;
    for route in &router.routes {
        let lane = &router.lanes[route.to.lane].key;
        let revision = &route.revision;
        // A delivery of the present revision may be there already, if the code went back: then that one counts. If it
        // was given up, it is the one that is tried again.
        transaction.execute(
            "UPDATE delivery SET state = 'pending', attempt = 0, next_at = ?3 WHERE trigger = ?1 AND kind = 'event' AND revision = ?2
             AND state = 'dead' AND again = 0 AND event IN (SELECT event FROM delivery AS old WHERE old.trigger = ?1
             AND old.kind = 'event' AND old.state = 'pending' AND old.revision <> ?2)",
            params![route.name, revision, now()],
        )?;
        transaction.execute(
            "UPDATE OR IGNORE delivery SET revision = ?2, lane = ?3, attempt = 0, next_at = ?4,
             mark = CASE WHEN mark IS NULL OR revision = ?2 THEN mark ELSE ?2 END
             WHERE trigger = ?1 AND kind = 'event' AND state = 'pending' AND (revision <> ?2 OR lane <> ?3)",
            params![route.name, revision, lane, now()],
        )?;
        transaction.execute(
            "DELETE FROM delivery WHERE trigger = ?1 AND kind = 'event' AND state = 'pending' AND revision <> ?2",
            params![route.name, revision],
        )?;
        died += match route.dead_letter {
            Some(Address { lane, .. }) => {
                transaction.execute(
                    "UPDATE delivery SET lane = ?2 WHERE trigger = ?1 AND kind = 'dead' AND state = 'pending'",
                    params![route.name, router.lanes[lane].key],
                )?;
                0
            }
            None => transaction.execute(
                "UPDATE delivery SET state = 'dead', changed = ?2, last_error = 'there is no dead letter sink any more'
                 WHERE trigger = ?1 AND kind = 'dead' AND state = 'pending'",
                params![route.name, now()],
            )?,
        };
    }
    died += transaction.execute(
        "UPDATE delivery SET state = 'dead', changed = ?2, last_error = 'the trigger ' || trigger || ' is no longer in the manifests'
         WHERE state = 'pending' AND trigger NOT IN (SELECT value FROM json_each(?1))",
        params![serde_json::to_string(&names).unwrap_or_default(), now()],
    )?;
    Ok(died)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::manifest::{
        Backoff, Command, Delivery, Destination, Filter, LocalRun, Pipeline, Ready, Service, Trigger,
    };
    use std::time::Duration;

    fn database() -> Connection {
        let connection = Connection::open_in_memory().unwrap();
        records::create_tables(&connection).unwrap();
        connection.execute_batch(include_str!("schema.sql")).unwrap();
        connection
    }

    /// A router with these triggers, each to a service of its own name and revision.
    fn router(triggers: &[(&str, &str)]) -> Router {
        router_with(triggers, None)
    }

    fn router_with(triggers: &[(&str, &str)], dead_letter: Option<&str>) -> Router {
        let service = |name: &str, revision: &str| Service {
            name: name.to_owned(),
            run: LocalRun {
                command: Command::Program(vec![]),
                folder: "/".into(),
                env: Default::default(),
                memory: None,
                cpu_millis: None,
                revision: revision.to_owned(),
            },
            concurrency: 1,
            min_scale: 0,
            max_scale: 1,
            timeout: Duration::from_secs(1),
            idle: Duration::from_secs(1),
            ready: Ready::Port,
        };
        let to = |name: &str| Destination::Service { name: name.to_owned(), path: String::new() };
        let trigger = |name: &str| Trigger {
            name: name.to_owned(),
            filter: Filter::All(vec![]),
            subscriber: to(name),
            delivery: Delivery {
                retry: 0,
                backoff: Backoff::Linear,
                delay: Duration::ZERO,
                timeout: None,
                dead_letter: dead_letter.map(to),
            },
        };
        Router::new(&Pipeline {
            services: triggers
                .iter()
                .copied()
                .chain(dead_letter.map(|name| (name, "1")))
                .map(|(name, revision)| service(name, revision))
                .collect(),
            triggers: triggers.iter().map(|(name, _)| trigger(name)).collect(),
            ..Pipeline::default()
        })
        .unwrap()
    }

    fn in_transaction<T>(
        connection: &mut Connection,
        act: impl FnOnce(&Transaction) -> rusqlite::Result<T>,
    ) -> T {
        let transaction = connection.transaction().unwrap();
        let result = act(&transaction).unwrap();
        transaction.commit().unwrap();
        result
    }

    fn post(connection: &mut Connection, router: &Router, id: &str) -> Accepted {
        let event = Event::new("/s", id, "dataset.updated", "iris", "r", json!({}));
        in_transaction(connection, |transaction| accept(transaction, router, &event))
    }

    fn due_of(connection: &Connection, lane: &str) -> Vec<Due> {
        due(connection, lane, &[], 100).unwrap().due
    }

    /// `TRIGGER REVISION STATE`, in the order in which they were made.
    fn rows(connection: &Connection) -> Vec<String> {
        let mut statement = connection
            .prepare("SELECT trigger || ' ' || revision || ' ' || state FROM delivery ORDER BY id")
            .unwrap();
        statement.query_map([], |row| row.get(0)).unwrap().collect::<rusqlite::Result<_>>().unwrap()
    }

    #[test]
    fn what_is_in_flight_is_not_taken_again_and_the_oldest_is_first() {
        let (mut connection, router) = (database(), router(&[("a", "1")]));
        for id in ["1", "2", "3"] {
            assert!(post(&mut connection, &router, id).is_new);
        }
        assert!(!post(&mut connection, &router, "2").is_new);
        let first = due_of(&connection, "service/a");
        assert_eq!(first.iter().map(|due| due.event.id.as_str()).collect::<Vec<_>>(), ["1", "2", "3"]);
        let rest = due(&connection, "service/a", &[first[0].id], 1).unwrap().due;
        assert_eq!(rest.iter().map(|due| due.event.id.as_str()).collect::<Vec<_>>(), ["2"]);
        let far = now() + 60_000;
        in_transaction(&mut connection, |transaction| {
            later(transaction, first[0].id, &Failure::new("no"), far)
        });
        let rest = due(&connection, "service/a", &[], 100).unwrap();
        assert_eq!((rest.due.len(), rest.next), (2, Some(far)));
    }

    #[test]
    fn an_outcome_counts_once() {
        let (mut connection, router) = (database(), router(&[("a", "1")]));
        post(&mut connection, &router, "1");
        let due = due_of(&connection, "service/a").remove(0);
        let reply = due.event.reply("a", "dataset.validated", "iris", json!({}));
        let first = in_transaction(&mut connection, |transaction| {
            done(transaction, &router, &due, Some(200), Some(&reply))
        });
        assert!(first.is_new && first.lanes.len() == 1);
        let again = in_transaction(&mut connection, |transaction| {
            dead(transaction, &router, &due, &Failure::new("late"))
        });
        assert!(!again.is_new && again.lanes.is_empty());
        assert_eq!(rows(&connection), ["a 1 done", "a 1 pending"]);
    }

    #[test]
    fn what_is_pending_goes_to_the_present_revision_or_is_given_up() {
        let mut connection = database();
        let old = router(&[("a", "1"), ("b", "1")]);
        post(&mut connection, &old, "1");
        let due = due_of(&connection, "service/a").remove(0);
        in_transaction(&mut connection, |transaction| dead(transaction, &old, &due, &Failure::new("no")));
        post(&mut connection, &old, "2");
        let new = router(&[("a", "2")]);
        assert_eq!(in_transaction(&mut connection, |transaction| adopt(transaction, &new)), 2);
        assert_eq!(rows(&connection), ["a 1 dead", "b 1 dead", "a 2 pending", "b 1 dead"]);
        let (number, _) =
            in_transaction(&mut connection, |transaction| requeue(transaction, &new, &Requeue::default()));
        assert_eq!(number, 1, "what has no trigger stays dead");
        // The manifests are as they were: all of it is delivered to the old revision again.
        in_transaction(&mut connection, |transaction| adopt(transaction, &old));
        let (number, lanes) =
            in_transaction(&mut connection, |transaction| requeue(transaction, &old, &Requeue::default()));
        assert_eq!((number, lanes.len()), (2, 1));
        assert_eq!(rows(&connection), ["a 1 pending", "b 1 pending", "a 1 pending", "b 1 pending"]);
    }

    #[test]
    fn what_was_given_up_is_tried_with_the_present_code() {
        let mut connection = database();
        let (old, new) = (router(&[("a", "1")]), router(&[("a", "2")]));
        post(&mut connection, &old, "1");
        let due = due_of(&connection, "service/a").remove(0);
        in_transaction(&mut connection, |transaction| dead(transaction, &old, &due, &Failure::new("no")));
        connection.execute("UPDATE delivery SET lane = 'service/before'", []).unwrap();
        let requeued = |connection: &mut Connection| {
            in_transaction(connection, |transaction| requeue(transaction, &new, &Requeue::default())).0
        };
        assert_eq!(requeued(&mut connection), 1);
        assert_eq!(rows(&connection), ["a 2 pending"]);
        let due = due_of(&connection, "service/a").remove(0);
        in_transaction(&mut connection, |transaction| done(transaction, &new, &due, Some(204), None));
        assert_eq!(
            in_transaction(&mut connection, |transaction| super::super::rerun::rerun(transaction, &new)),
            []
        );
        // One more of an old revision, beside that which is done.
        connection
            .execute(
                "INSERT INTO delivery (event, trigger, kind, revision, lane, state, next_at, changed)
                            VALUES (1, 'a', 'event', '1', 'service/a', 'dead', 0, 0)",
                [],
            )
            .unwrap();
        assert_eq!(requeued(&mut connection), 1);
        assert_eq!(rows(&connection), ["a 2 done", "a 2 pending"]);
    }

    #[test]
    fn a_repetition_that_waits_while_the_code_changes_is_one_of_the_new_code() {
        let mut connection = database();
        let routers = ["1", "2", "3"].map(|revision| router(&[("a", revision)]));
        post(&mut connection, &routers[0], "1");
        let due = due_of(&connection, "service/a").remove(0);
        in_transaction(&mut connection, |transaction| done(transaction, &routers[0], &due, Some(204), None));
        in_transaction(&mut connection, |transaction| super::super::rerun::rerun(transaction, &routers[1]));
        let due = due_of(&connection, "service/a").remove(0);
        let far = now() + 60_000;
        in_transaction(&mut connection, |transaction| later(transaction, due.id, &Failure::new("no"), far));
        in_transaction(&mut connection, |transaction| adopt(transaction, &routers[2]));
        let due = due_of(&connection, "service/a").remove(0);
        assert_eq!((due.event.attribute(REVISION), due.attempt), (Some("3"), 0));
    }

    #[test]
    fn a_requeued_delivery_whose_code_goes_back_leaves_its_dead_letter_as_it_was() {
        let mut connection = database();
        let [good, bad] = ["1", "2"].map(|revision| router_with(&[("a", revision)], Some("sink")));
        post(&mut connection, &good, "1");
        let due = due_of(&connection, "service/a").remove(0);
        in_transaction(&mut connection, |transaction| done(transaction, &good, &due, Some(204), None));
        in_transaction(&mut connection, |transaction| super::super::rerun::rerun(transaction, &bad));
        let due = due_of(&connection, "service/a").remove(0);
        let failure = Failure { status: Some(500), body: b"why".to_vec(), ..Failure::new("no") };
        in_transaction(&mut connection, |transaction| dead(transaction, &bad, &due, &failure));
        in_transaction(&mut connection, |transaction| requeue(transaction, &bad, &Requeue::default()));
        assert_eq!(rows(&connection), ["a 1 done", "a 2 pending", "a 2 pending"]);
        in_transaction(&mut connection, |transaction| adopt(transaction, &good));
        assert_eq!(rows(&connection), ["a 1 done", "a 2 pending"]);
        let told = due_of(&connection, "service/sink").remove(0).event;
        let reasons = ["knativeerrordest", "knativeerrorcode", "knativeerrordata"];
        assert_eq!(reasons.map(|name| told.attribute(name)), [Some("service/a"), Some("500"), Some("d2h5")]);
        // Nobody is left to be told.
        assert_eq!(
            in_transaction(&mut connection, |transaction| adopt(transaction, &router(&[("a", "1")]))),
            1
        );
        assert_eq!(rows(&connection), ["a 1 done", "a 2 dead"]);
    }

    #[test]
    fn a_repetition_that_is_tried_with_other_code_answers_another_event() {
        let mut connection = database();
        let routers = ["0", "1", "2"].map(|revision| router(&[("a", revision)]));
        post(&mut connection, &routers[0], "1");
        let mut marks = Vec::new();
        let mut next = |connection: &Connection| {
            let due = due_of(connection, "service/a").remove(0);
            marks.push(due.event.attribute(REVISION).map(str::to_owned));
            due
        };
        let due = next(&connection);
        in_transaction(&mut connection, |transaction| done(transaction, &routers[0], &due, Some(204), None));
        in_transaction(&mut connection, |transaction| super::super::rerun::rerun(transaction, &routers[1]));
        let due = next(&connection);
        in_transaction(&mut connection, |transaction| {
            dead(transaction, &routers[1], &due, &Failure::new("no"))
        });
        in_transaction(&mut connection, |transaction| requeue(transaction, &routers[2], &Requeue::default()));
        let due = next(&connection);
        in_transaction(&mut connection, |transaction| done(transaction, &routers[2], &due, Some(204), None));
        // Of an earlier revision, beside that which is done with the present one.
        in_transaction(&mut connection, |transaction| super::super::rerun::rerun(transaction, &routers[1]));
        let due = next(&connection);
        in_transaction(&mut connection, |transaction| {
            dead(transaction, &routers[1], &due, &Failure::new("no"))
        });
        in_transaction(&mut connection, |transaction| requeue(transaction, &routers[2], &Requeue::default()));
        next(&connection);
        assert_eq!(
            marks,
            [None, Some("1"), Some("2"), Some("1"), Some("2-1")].map(|mark| mark.map(str::to_owned))
        );
    }

    #[test]
    fn what_cannot_be_read_holds_up_no_other() {
        let (mut connection, router) = (database(), router(&[("a", "1")]));
        for id in ["1", "2"] {
            post(&mut connection, &router, id);
        }
        connection
            .execute("UPDATE event SET body = replace(body, '\"iris\"', '\"\"') WHERE seq = 1", [])
            .unwrap();
        let found = due(&connection, "service/a", &[], 100).unwrap();
        assert_eq!((found.due.len(), found.unreadable.len()), (1, 1));
        let (id, error) = &found.unreadable[0];
        in_transaction(&mut connection, |transaction| bury(transaction, *id, error));
        assert_eq!(rows(&connection), ["a 1 dead", "a 1 pending"]);
    }

    #[test]
    fn a_delivery_is_repeated_under_a_mark_of_its_own() {
        let (mut connection, router) = (database(), router(&[("a", "1")]));
        let seq = post(&mut connection, &router, "1").seq;
        let wanted = Requeue { trigger: Some("a".into()), source: Some("/s".into()), id: Some("1".into()) };
        let mut ids = BTreeSet::new();
        for mark in [None, Some("1-1"), Some("1-2")] {
            let due = due_of(&connection, "service/a").remove(0);
            assert_eq!(due.event.attribute(REVISION), mark);
            ids.insert(due.event.reply("a", "x", "y", json!({})).id);
            let repeated = |connection: &mut Connection| {
                in_transaction(connection, |transaction| requeue(transaction, &router, &wanted)).0
            };
            assert_eq!(repeated(&mut connection), 0, "it is pending");
            in_transaction(&mut connection, |transaction| done(transaction, &router, &due, Some(204), None));
            assert_eq!(repeated(&mut connection), 1);
        }
        assert_eq!(ids.len(), 3, "each answers another event");
        let unknown = Requeue { id: Some("2".into()), ..wanted };
        assert_eq!(
            in_transaction(&mut connection, |transaction| requeue(transaction, &router, &unknown)).0,
            0
        );
        assert_eq!(seq, 1);
    }
}
