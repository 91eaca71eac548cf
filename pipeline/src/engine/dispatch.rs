//! One task a target: takes the deliveries whose time has come, as many as the target can do at once, and waits for the next
//! reason to look. A target that is slow or dead keeps only its own lane waiting.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::task::JoinSet;

use super::call::{self, Failure, Outcome};
use super::deliveries::{self, Due, Kind, now};
use super::router::{Target, pause};
use super::{Engine, job};

/// Deliveries at a time to a target that is not one of the engine's own processes.
const ELSEWHERE: usize = 8;
/// Deliveries that are read at once.
const BATCH: usize = 64;
/// How long one call of somebody else's function may take if the trigger does not say: Knative's default.
const TIMEOUT: Duration = Duration::from_secs(300);
/// The pause after the database has failed.
const TROUBLE: Duration = Duration::from_secs(1);

/// Delivers to one target until the engine ends; then waits for what is in flight.
pub(crate) async fn run(engine: Arc<Engine>, lane: usize) {
    let capacity = engine.pools[lane].as_ref().map_or(ELSEWHERE, |pool| pool.capacity());
    let mut flights: JoinSet<()> = JoinSet::new();
    let mut in_flight: HashMap<tokio::task::Id, i64> = HashMap::new();
    loop {
        let free = (capacity - in_flight.len()).min(BATCH);
        let mut next = None;
        if free > 0 {
            let (key, known) =
                (engine.router.lanes[lane].key.clone(), in_flight.values().copied().collect::<Vec<_>>());
            match engine.ledger.read(move |connection| deliveries::due(connection, &key, &known, free)).await
            {
                Ok(found) => {
                    for due in found.due {
                        let id = due.id;
                        let flight = flights.spawn(deliver(engine.clone(), lane, due));
                        in_flight.insert(flight.id(), id);
                    }
                    for (id, error) in found.unreadable {
                        let flight = flights.spawn(bury(engine.clone(), id, error));
                        in_flight.insert(flight.id(), id);
                    }
                    next = found.next;
                }
                Err(error) => {
                    tracing::error!(
                        lane = engine.router.lanes[lane].key,
                        "deliveries cannot be read: {error}"
                    );
                    next = Some(now() + TROUBLE.as_millis() as i64);
                }
            }
        }
        let landed = |flight: Result<(tokio::task::Id, ()), tokio::task::JoinError>| match flight {
            Ok((task, ())) => task,
            Err(error) => error.id(),
        };
        tokio::select! {
            // More may wait than was read, so a landing is a reason to look as well.
            Some(flight) = flights.join_next_with_id(), if !flights.is_empty() => {
                in_flight.remove(&landed(flight));
                while let Some(flight) = flights.try_join_next_with_id() {
                    in_flight.remove(&landed(flight));
                }
            }
            () = engine.wakes[lane].notified() => {}
            () = job::sleep_until(next), if in_flight.len() < capacity => {}
            () = engine.shutdown.begun() => break,
        }
    }
    while flights.join_next().await.is_some() {}
}

/// One attempt, and its record.
async fn deliver(engine: Arc<Engine>, lane: usize, due: Due) {
    let Some(route) = engine.router.route(&due.trigger) else { return };
    let path = match (due.kind, &route.dead_letter) {
        (Kind::DeadLetter, Some(address)) => &address.path,
        _ => &route.to.path,
    };
    let outcome = match (&engine.router.lanes[lane].target, &engine.pools[lane]) {
        (Target::Service(_), Some(pool)) => pool.call(path, &due.event, route.delivery.timeout).await,
        (Target::Url(url), _) => {
            let timeout = route.delivery.timeout.unwrap_or(TIMEOUT);
            call::post(&engine.client, url, &due.event, timeout).await.outcome
        }
        (Target::Job(sink), _) => return make_job(&engine, sink.name.clone(), due).await,
        (Target::Service(_) | Target::Broker, _) => Outcome::Done { status: 202, reply: None },
    };
    let written = match outcome {
        Outcome::Done { status, reply } => {
            tracing::debug!(trigger = due.trigger, event = due.event.id, status, "delivered");
            let router = engine.router.clone();
            engine
                .ledger
                .write(move |transaction| {
                    deliveries::done(transaction, &router, &due, Some(status), reply.as_deref())
                })
                .await
        }
        // The instance was asked to end: that is nobody's failure.
        Outcome::Later(_) if engine.shutdown.has_begun() => return,
        Outcome::Later(failure) if due.attempt < route.delivery.retry => {
            let pause = pause(&route.delivery, due.attempt, failure.asked);
            tracing::warn!(
                trigger = due.trigger,
                event = due.event.id,
                attempt = due.attempt + 1,
                "tried again in {:.1} s: {}",
                pause.as_secs_f64(),
                failure.text
            );
            let next_at = now().saturating_add(i64::try_from(pause.as_millis()).unwrap_or(i64::MAX));
            engine
                .ledger
                .write(move |transaction| deliveries::later(transaction, due.id, &failure, next_at))
                .await
                .map(|()| deliveries::Accepted::default())
        }
        Outcome::Later(failure) | Outcome::Never(failure) => give_up(&engine, due, failure).await,
    };
    settle(&engine, written).await;
}

async fn bury(engine: Arc<Engine>, id: i64, error: String) {
    tracing::error!(delivery = id, "given up, the event cannot be read: {error}");
    let written = engine.ledger.write(move |transaction| deliveries::bury(transaction, id, &error)).await;
    settle(&engine, written.map(|()| deliveries::Accepted::default())).await;
}

async fn give_up(
    engine: &Arc<Engine>,
    due: Due,
    failure: Failure,
) -> Result<deliveries::Accepted, super::ledger::LedgerError> {
    tracing::error!(trigger = due.trigger, event = due.event.id, "given up: {}", failure.text);
    let router = engine.router.clone();
    engine.ledger.write(move |transaction| deliveries::dead(transaction, &router, &due, &failure)).await
}

async fn make_job(engine: &Arc<Engine>, sink: String, due: Due) {
    let router = engine.router.clone();
    let made = engine.ledger.write(move |transaction| job::create(transaction, &router, &sink, &due)).await;
    if made.is_ok() {
        engine.jobs.work.notify_one();
    }
    settle(engine, made).await;
}

/// Wakes who has work now. What could not be recorded is delivered again, but not at once.
async fn settle(engine: &Engine, written: Result<deliveries::Accepted, super::ledger::LedgerError>) {
    match written {
        Ok(accepted) => engine.wake(&accepted),
        Err(error) => {
            tracing::error!("a delivery cannot be recorded, and is made again: {error}");
            tokio::time::sleep(TROUBLE).await;
        }
    }
}
