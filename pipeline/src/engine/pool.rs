//! The instances of one service: started when there is work, at most `max_scale`, ended when idle.
//!
//! An instance counts from before it is started until nothing of it is left, so there are never more, not even for a moment.
//! Who needs one waits for a change of the pool; nothing polls.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use serde_json::{Value, json};
use tokio::sync::{Notify, watch};
use tokio::time::Instant;

use super::call::{End, Failure, Outcome};
use super::instance::Instance;
use super::process::{Starter, describe};
use crate::event::Event;
use crate::manifest::Service;

/// The pause before an instance of `min_scale` that ended is started again: so long at first, doubled up to the second.
const RESTART: Duration = Duration::from_secs(1);
const SLOWEST_RESTART: Duration = Duration::from_secs(300);

/// The instances of a service.
#[derive(Debug)]
pub(crate) struct Pool {
    pub(crate) service: Service,
    starter: Arc<Starter>,
    client: reqwest::Client,
    state: Mutex<State>,
    /// A slot is free, or an instance is gone.
    changed: Notify,
    closed: watch::Sender<bool>,
}

#[derive(Debug, Default)]
struct State {
    members: Vec<Arc<Member>>,
    /// Those that are being started, which are no members yet.
    starting: u32,
    /// Calls that wait for a slot of one that is being started.
    waiting: u32,
    started: u64,
}

#[derive(Debug)]
struct Member {
    instance: Arc<Instance>,
    since: Instant,
    state: Mutex<MemberState>,
}

#[derive(Debug)]
struct MemberState {
    busy: u32,
    calls: u64,
    idle_since: Instant,
    /// Takes no calls any more.
    ends: bool,
    /// Whether a task waits for it to have been idle long enough.
    is_timed: bool,
}

/// The right to one call at an instance; given back when dropped.
struct Slot {
    pool: Arc<Pool>,
    member: Arc<Member>,
}

impl Pool {
    pub(crate) fn new(service: Service, starter: Arc<Starter>, client: reqwest::Client) -> Arc<Self> {
        let mut service = service;
        service.concurrency = service.concurrency.max(1);
        service.max_scale = service.max_scale.max(service.min_scale).max(1);
        Arc::new(Self {
            service,
            starter,
            client,
            state: Mutex::default(),
            changed: Notify::new(),
            closed: watch::Sender::new(false),
        })
    }

    /// Calls at a time, in all instances.
    pub(crate) fn capacity(&self) -> usize {
        self.service.max_scale.saturating_mul(self.service.concurrency).min(1024) as usize
    }

    /// One call, by whichever instance is free first.
    pub(crate) async fn call(
        self: &Arc<Self>,
        path: &str,
        event: &Event,
        timeout: Option<Duration>,
    ) -> Outcome {
        let mut may_try_another = true;
        loop {
            let slot = match self.slot().await {
                Ok(slot) => slot,
                Err(text) => return Outcome::Later(Failure::new(text)),
            };
            let timeout = timeout.unwrap_or(self.service.timeout);
            let answer = slot.member.instance.call(&self.client, path, event, timeout).await;
            let fault = match answer.end {
                End::Exchanged => return answer.outcome,
                End::TimedOut => "no answer in time",
                End::Unreached => "it takes no connections any more",
            };
            tracing::warn!(
                service = self.service.name,
                event = event.id,
                "{fault}; the instance is replaced"
            );
            lock(&slot.member.state).ends = true;
            // What never reached the function was no attempt of it.
            if answer.end != End::Unreached || !std::mem::take(&mut may_try_another) {
                return answer.outcome;
            }
        }
    }

    /// Waits for a slot; starts an instance if none has one and there may be one more.
    async fn slot(self: &Arc<Self>) -> Result<Slot, String> {
        let mut is_waiting = false;
        loop {
            // Before the look, so that no change between look and wait is missed.
            let changed = self.changed.notified();
            let starts = {
                let mut state = lock(&self.state);
                if is_waiting {
                    state.waiting -= 1;
                    is_waiting = false;
                }
                if *self.closed.borrow() {
                    return Err("the engine ends".to_owned());
                }
                if let Some(slot) = self.free_slot(&state) {
                    return Ok(slot);
                }
                // Who starts an instance takes its first slot.
                let to_come = state.starting.saturating_mul(self.service.concurrency - 1);
                if state.waiting >= to_come && self.live(&state) < self.service.max_scale {
                    state.starting += 1;
                    true
                } else {
                    state.waiting += 1;
                    is_waiting = true;
                    false
                }
            };
            if starts {
                return self.start().await.map(|member| Slot { pool: self.clone(), member });
            }
            changed.await;
        }
    }

    fn live(&self, state: &State) -> u32 {
        state.starting + u32::try_from(state.members.len()).unwrap_or(u32::MAX)
    }

    /// The busiest that has room, so that the others become idle.
    fn free_slot(self: &Arc<Self>, state: &State) -> Option<Slot> {
        let room = |member: &&Arc<Member>| {
            let state = lock(&member.state);
            let is_up = !state.ends && member.instance.process.report().is_none();
            (is_up && state.busy < self.service.concurrency).then_some(state.busy)
        };
        let member = state.members.iter().filter(|member| room(member).is_some()).max_by_key(room)?.clone();
        {
            let mut state = lock(&member.state);
            state.busy += 1;
            state.calls += 1;
        }
        Some(Slot { pool: self.clone(), member })
    }

    /// Starts an instance that was counted in `starting`; it has one call.
    async fn start(self: &Arc<Self>) -> Result<Arc<Member>, String> {
        // Whatever happens to the caller, the start is brought to its end, so that the count holds.
        let pool = self.clone();
        let starting = tokio::spawn(async move {
            let began = Instant::now();
            let mut closed = pool.closed.subscribe();
            let closing = async { drop(closed.wait_for(|closed| *closed).await) };
            let started = Instance::start(&pool.starter, &pool.client, &pool.service, closing).await;
            let mut state = lock(&pool.state);
            state.starting -= 1;
            let result = started.map(|instance| {
                let name = &pool.service.name;
                tracing::debug!(
                    service = name,
                    pid = instance.process.pid,
                    "ready after {:?}",
                    began.elapsed()
                );
                let member = Arc::new(Member {
                    instance: Arc::new(instance),
                    since: Instant::now(),
                    state: Mutex::new(MemberState {
                        busy: 1,
                        calls: 1,
                        idle_since: Instant::now(),
                        ends: false,
                        is_timed: false,
                    }),
                });
                state.members.push(member.clone());
                state.started += 1;
                tokio::spawn(pool.clone().bury(member.clone()));
                if *pool.closed.borrow() {
                    member.instance.process.terminate();
                }
                member
            });
            drop(state);
            pool.changed.notify_waiters();
            result
        });
        starting.await.unwrap_or_else(|error| Err(error.to_string()))
    }

    /// Takes an instance out of the pool when nothing of it is left.
    async fn bury(self: Arc<Self>, member: Arc<Member>) {
        let report = member.instance.process.ended().await;
        let was_asked = lock(&member.state).ends || *self.closed.borrow();
        if !was_asked {
            tracing::warn!(
                service = self.service.name,
                pid = member.instance.process.pid,
                "{}",
                describe(&report)
            );
        }
        lock(&self.state).members.retain(|other| !Arc::ptr_eq(other, &member));
        self.changed.notify_waiters();
    }

    /// Ends an instance that has been idle long enough; at most one such task runs for each.
    async fn end_if_idle(self: Arc<Self>, member: Arc<Member>) {
        loop {
            let until = lock(&member.state).idle_since + self.service.idle;
            tokio::time::sleep_until(until).await;
            let state = lock(&self.state);
            let mut its = lock(&member.state);
            if its.busy > 0 || its.ends {
                its.is_timed = false;
                return;
            }
            if its.idle_since + self.service.idle > Instant::now() {
                continue;
            }
            let up = state
                .members
                .iter()
                .filter(|other| Arc::ptr_eq(other, &member) || !lock(&other.state).ends)
                .count();
            its.is_timed = false;
            if up > self.service.min_scale as usize {
                its.ends = true;
                member.instance.process.terminate();
            }
            return;
        }
    }

    /// Keeps `min_scale` instances up, until the pool is closed.
    pub(crate) async fn keep_minimum(self: Arc<Self>) {
        let mut pause = RESTART;
        while self.service.min_scale > 0 && !*self.closed.borrow() {
            let changed = self.changed.notified();
            let is_short = {
                let mut state = lock(&self.state);
                let is_short = self.live(&state) < self.service.min_scale;
                state.starting += u32::from(is_short);
                is_short
            };
            if !is_short {
                changed.await;
                continue;
            }
            let is_up = match self.start().await {
                Ok(member) => {
                    drop(Slot { pool: self.clone(), member });
                    true
                }
                Err(text) => {
                    tracing::warn!(service = self.service.name, "{text}");
                    false
                }
            };
            // The first ones at once, what keeps ending or does not start slower and slower.
            if !is_up || lock(&self.state).started > u64::from(self.service.min_scale) {
                tokio::time::sleep(pause).await;
                pause = (pause * 2).min(SLOWEST_RESTART);
            }
        }
    }

    /// Takes no more calls and asks all instances to end; comes back when they are gone, or kills them at `until`.
    pub(crate) async fn close(&self, until: Instant) {
        self.closed.send_replace(true);
        self.changed.notify_waiters();
        let mut killed = false;
        for member in &lock(&self.state).members {
            lock(&member.state).ends = true;
            member.instance.process.terminate();
        }
        loop {
            let changed = self.changed.notified();
            if self.live(&lock(&self.state)) == 0 {
                return;
            }
            let late = async {
                if killed { std::future::pending().await } else { tokio::time::sleep_until(until).await }
            };
            tokio::select! {
                () = changed => {}
                () = late => {
                    killed = true;
                    lock(&self.state).members.iter().for_each(|member| member.instance.process.kill());
                }
            }
        }
    }

    /// Instances that are there, in any state.
    pub(crate) fn size(&self) -> u32 {
        self.live(&lock(&self.state))
    }

    /// For `/v1/functions`.
    pub(crate) fn describe(&self) -> Value {
        let state = lock(&self.state);
        let instances: Vec<Value> = state
            .members
            .iter()
            .map(|member| {
                let its = lock(&member.state);
                let word = if its.ends {
                    "ending"
                } else if its.busy > 0 {
                    "busy"
                } else {
                    "idle"
                };
                json!({
                    "pid": member.instance.process.pid,
                    "port": member.instance.port,
                    "state": word,
                    "requests": its.busy,
                    "calls": its.calls,
                    "seconds": member.since.elapsed().as_secs(),
                })
            })
            .collect();
        json!({
            "kind": "service",
            "name": self.service.name,
            "revision": self.service.run.revision,
            "concurrency": self.service.concurrency,
            "min_scale": self.service.min_scale,
            "max_scale": self.service.max_scale,
            "starting": state.starting,
            "started": state.started,
            "instances": instances,
        })
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        let is_timer_needed = {
            let mut state = lock(&self.member.state);
            state.busy -= 1;
            state.idle_since = Instant::now();
            if state.busy == 0 && state.ends {
                self.member.instance.process.kill();
            }
            let is_needed = state.busy == 0 && !state.ends && !state.is_timed;
            state.is_timed |= is_needed;
            is_needed
        };
        if is_timer_needed {
            tokio::spawn(self.pool.clone().end_if_idle(self.member.clone()));
        }
        self.pool.changed.notify_waiters();
    }
}

/// Nothing panics while it holds one of these locks, so what is behind them is whole.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
