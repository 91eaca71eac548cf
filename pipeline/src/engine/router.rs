//! Which event goes where: the triggers of a pipeline, and a lane for each target.

use std::collections::HashMap;
use std::time::Duration;

use super::EngineError;
use crate::event::{Event, hex};
use crate::manifest::{
    Backoff, Delivery, Destination, Filter, JobSink, LOCAL_PAUSE, Pipeline, Service, Trigger,
};

/// For pings that do not go to the broker: the manifest of a ping says nothing about retries.
const OF_PINGS: Delivery = Delivery {
    retry: 5,
    backoff: Backoff::Exponential,
    delay: Duration::from_millis(500),
    timeout: None,
    dead_letter: None,
};

/// All triggers and targets.
#[derive(Debug)]
pub(crate) struct Router {
    pub(crate) routes: Vec<Route>,
    pub(crate) lanes: Vec<Lane>,
    by_name: HashMap<String, usize>,
    /// Pings with a sink of their own, by the source of their events: those go there and nowhere else.
    direct: HashMap<String, usize>,
}

/// A trigger, or a ping with a sink of its own.
#[derive(Debug)]
pub(crate) struct Route {
    pub(crate) name: String,
    pub(crate) filter: Filter,
    pub(crate) to: Address,
    /// Of the target.
    pub(crate) revision: String,
    pub(crate) delivery: Delivery,
    pub(crate) dead_letter: Option<Address>,
}

/// A lane, and the path of a service behind it.
#[derive(Debug, Clone)]
pub(crate) struct Address {
    pub(crate) lane: usize,
    pub(crate) path: String,
}

/// A target and all that waits for it.
#[derive(Debug)]
pub(crate) struct Lane {
    /// How the database calls it: `service/NAME`, `job/NAME`, `broker`, or a URL.
    pub(crate) key: String,
    pub(crate) target: Target,
}

#[derive(Debug, Clone)]
pub(crate) enum Target {
    Service(Service),
    Job(JobSink),
    Url(String),
    /// The event is there already: nothing to do.
    Broker,
}

impl Router {
    /// Checks that every name is in the set.
    ///
    /// # Errors
    /// [`EngineError::Unknown`].
    pub(crate) fn new(pipeline: &Pipeline) -> Result<Self, EngineError> {
        let mut router =
            Self { routes: Vec::new(), lanes: Vec::new(), by_name: HashMap::new(), direct: HashMap::new() };
        // Also those that no trigger names, so that they are listed.
        for service in &pipeline.services {
            router.lane(format!("service/{}", service.name), || Some(Target::Service(service.clone())));
        }
        for job in &pipeline.jobs {
            router.lane(format!("job/{}", job.name), || Some(Target::Job(job.clone())));
        }
        for trigger in &pipeline.triggers {
            router.add(&format!("trigger {}", trigger.name), trigger)?;
        }
        for ping in pipeline.pings.iter().filter(|ping| ping.sink != Destination::Broker) {
            let trigger = Trigger {
                name: format!("ping:{}", ping.name),
                filter: Filter::All(Vec::new()),
                subscriber: ping.sink.clone(),
                delivery: OF_PINGS,
            };
            router.direct.insert(ping_source(&ping.name), router.routes.len());
            router.add(&format!("ping {}", ping.name), &trigger)?;
        }
        Ok(router)
    }

    fn add(&mut self, by: &str, trigger: &Trigger) -> Result<(), EngineError> {
        let mut address = |destination: &Destination| {
            self.address(destination)
                .ok_or_else(|| EngineError::Unknown { by: by.to_owned(), what: describe(destination) })
        };
        let to = address(&trigger.subscriber)?;
        let dead_letter = trigger.delivery.dead_letter.as_ref().map(address).transpose()?;
        let revision = match &self.lanes[to.lane].target {
            Target::Service(service) => service.run.revision.clone(),
            Target::Job(job) => job.run.revision.clone(),
            // What is behind an address may change at any time, and nobody here would know.
            Target::Url(url) => hex(&[url.as_bytes()])[..16].to_owned(),
            Target::Broker => "broker".to_owned(),
        };
        self.by_name.insert(trigger.name.clone(), self.routes.len());
        self.routes.push(Route {
            name: trigger.name.clone(),
            filter: trigger.filter.clone(),
            to,
            revision,
            delivery: trigger.delivery.clone(),
            dead_letter,
        });
        Ok(())
    }

    fn address(&mut self, destination: &Destination) -> Option<Address> {
        let (key, path) = match destination {
            Destination::Service { name, path } => {
                let path = if path.starts_with('/') { path.clone() } else { format!("/{path}") };
                (format!("service/{name}"), path)
            }
            Destination::Job { name } => (format!("job/{name}"), String::new()),
            Destination::Url(url) => (url.clone(), String::new()),
            Destination::Broker => ("broker".to_owned(), String::new()),
        };
        let target = || match destination {
            Destination::Url(url) => Some(Target::Url(url.clone())),
            Destination::Broker => Some(Target::Broker),
            Destination::Service { .. } | Destination::Job { .. } => None,
        };
        Some(Address { lane: self.lane(key, target)?, path })
    }

    fn lane(&mut self, key: String, target: impl FnOnce() -> Option<Target>) -> Option<usize> {
        if let Some(known) = self.lanes.iter().position(|lane| lane.key == key) {
            return Some(known);
        }
        self.lanes.push(Lane { key, target: target()? });
        Some(self.lanes.len() - 1)
    }

    /// The triggers that take this event.
    pub(crate) fn matching<'a>(&'a self, event: &'a Event) -> impl Iterator<Item = &'a Route> {
        let only = self.direct.get(&event.source).copied();
        let routes = self.routes.iter().enumerate();
        let others = move |index| !self.direct.values().any(|direct| *direct == index);
        routes
            .filter(move |(index, route)| {
                only.map_or_else(|| others(*index) && matches(&route.filter, event), |only| only == *index)
            })
            .map(|(_, route)| route)
    }

    pub(crate) fn route(&self, trigger: &str) -> Option<&Route> {
        self.by_name.get(trigger).map(|index| &self.routes[*index])
    }
}

/// The source of a ping's events, as in Knative.
pub(crate) fn ping_source(name: &str) -> String {
    format!("/apis/v1/namespaces/default/pingsources/{name}")
}

fn describe(destination: &Destination) -> String {
    match destination {
        Destination::Service { name, .. } => format!("service {name}"),
        Destination::Job { name } => format!("job {name}"),
        Destination::Url(url) => url.clone(),
        Destination::Broker => "the broker".to_owned(),
    }
}

/// Whether an event passes a filter. No condition at all passes, as with Knative.
pub(crate) fn matches(filter: &Filter, event: &Event) -> bool {
    let each = |wanted: &std::collections::BTreeMap<String, String>, test: fn(&str, &str) -> bool| {
        wanted.iter().all(|(name, value)| event.attribute(name).is_some_and(|found| test(found, value)))
    };
    match filter {
        Filter::All(filters) => filters.iter().all(|filter| matches(filter, event)),
        Filter::Any(filters) => filters.iter().any(|filter| matches(filter, event)),
        Filter::Not(filter) => !matches(filter, event),
        Filter::Exact(wanted) => each(wanted, |found, value| value.is_empty() || found == value),
        Filter::Prefix(wanted) => each(wanted, |found, value| found.starts_with(value)),
        Filter::Suffix(wanted) => each(wanted, |found, value| found.ends_with(value)),
    }
}

/// The pause before the next attempt after `failed` failed ones (0 for the first): exponential `delay * 2^failed`, linear
/// `delay * (failed + 1)`, at least what the answer asked for, at most [`LOCAL_PAUSE`].
pub(crate) fn pause(delivery: &Delivery, failed: u32, asked: Option<Duration>) -> Duration {
    let factor = match delivery.backoff {
        Backoff::Linear => failed.saturating_add(1),
        Backoff::Exponential => 2_u32.saturating_pow(failed),
    };
    delivery.delay.saturating_mul(factor).max(asked.unwrap_or_default()).min(LOCAL_PAUSE)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;
    use std::collections::BTreeMap;

    fn map(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
        pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
    }

    #[test]
    fn filters_pass_what_knative_passes() {
        let event = Event::new("/s", "1", "dataset.updated", "iris", "r", json!({}));
        let exact = |pairs| Filter::Exact(map(pairs));
        let cases = [
            (exact(&[]), true),
            (exact(&[("type", "dev.baton.dataset.updated.v1")]), true),
            (exact(&[("type", "dev.baton.dataset.updated")]), false),
            (exact(&[("type", "dev.baton.dataset.updated.v1"), ("subject", "wine")]), false),
            (exact(&[("pipelinerun", "")]), true),
            (exact(&[("absent", "")]), false),
            (exact(&[("source", "/s"), ("id", "1"), ("specversion", "1.0")]), true),
            (Filter::Prefix(map(&[("type", "dev.baton.")])), true),
            (Filter::Prefix(map(&[("type", "com.")])), false),
            (Filter::Suffix(map(&[("type", ".v1"), ("subject", "is")])), true),
            (Filter::Suffix(map(&[("type", ".v1"), ("absent", "")])), false),
            (Filter::All(vec![]), true),
            (Filter::All(vec![exact(&[("id", "1")]), exact(&[("id", "2")])]), false),
            (Filter::Any(vec![exact(&[("id", "1")]), exact(&[("id", "2")])]), true),
            (Filter::Any(vec![exact(&[("id", "3")]), exact(&[("id", "2")])]), false),
            (Filter::Not(Box::new(exact(&[("id", "2")]))), true),
            (Filter::Not(Box::new(exact(&[("absent", "")]))), true),
            (Filter::Not(Box::new(Filter::All(vec![]))), false),
        ];
        for (filter, expected) in cases {
            assert_eq!(matches(&filter, &event), expected, "{filter:?}");
        }
    }

    #[test]
    fn pauses_grow_and_have_an_end() {
        let delivery = |backoff| Delivery {
            retry: 100,
            backoff,
            delay: Duration::from_millis(500),
            timeout: None,
            dead_letter: None,
        };
        let asked = Some(Duration::from_secs(7));
        let cases = [
            (Backoff::Exponential, 0, None, 500),
            (Backoff::Exponential, 3, None, 4_000),
            (Backoff::Exponential, 99, None, 300_000),
            (Backoff::Linear, 0, None, 500),
            (Backoff::Linear, 3, None, 2_000),
            (Backoff::Linear, 99_999, None, 300_000),
            (Backoff::Linear, 0, asked, 7_000),
            (Backoff::Linear, 20, asked, 10_500),
            (Backoff::Linear, 0, Some(Duration::from_secs(86_400)), 300_000),
        ];
        for (backoff, failed, asked, expected) in cases {
            assert_eq!(
                pause(&delivery(backoff), failed, asked).as_millis(),
                expected,
                "{backoff:?} after {failed}"
            );
        }
    }
}
