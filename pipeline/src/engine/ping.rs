//! Timers that send events, as Knative's PingSource.
//!
//! The id of an event is the ping's name and the time for which it was planned, so an engine that is restarted within a
//! tick sends it once. What was missed while no engine ran is not made up for.

use std::collections::BTreeMap;
use std::sync::Arc;

use croner::Cron;
use croner::parser::CronParser;
use jiff::tz::TimeZone;
use jiff::{Timestamp, Zoned};

use super::router::ping_source;
use super::{Engine, EngineError, job};
use crate::event::{Data, Event, Json};
use crate::manifest::{Ping, Pipeline};

/// A ping whose schedule and data were understood.
pub(crate) struct Timer {
    ping: Ping,
    cron: Cron,
    zone: TimeZone,
}

/// All pings of a pipeline.
///
/// # Errors
/// [`EngineError::Ping`].
pub(crate) fn checked(pipeline: &Pipeline) -> Result<Vec<Timer>, EngineError> {
    pipeline
        .pings
        .iter()
        .map(|ping| {
            let failed = |reason: String| EngineError::Ping { name: ping.name.clone(), reason };
            let cron = CronParser::new()
                .parse(&ping.schedule)
                .map_err(|error| failed(format!("schedule {:?}: {error}", ping.schedule)))?;
            let zone = match &ping.timezone {
                None => TimeZone::UTC,
                Some(name) => TimeZone::get(name).map_err(|error| failed(error.to_string()))?,
            };
            let timer = Timer { ping: ping.clone(), cron, zone };
            timer.event(Timestamp::now()).storable().map_err(|error| failed(error.to_string()))?;
            Ok(timer)
        })
        .collect()
}

/// Sends the events of a ping until the engine ends, or there is no next time.
pub(crate) async fn run(engine: Arc<Engine>, timer: Timer) {
    let mut last = Zoned::new(Timestamp::now(), timer.zone.clone());
    loop {
        let next = match timer.cron.find_next_occurrence(&last, false) {
            Ok(next) => next,
            Err(error) => {
                tracing::warn!(ping = timer.ping.name, "has no next time: {error}");
                return;
            }
        };
        // A long sleep is cut in parts.
        while next.timestamp() > Timestamp::now() {
            tokio::select! {
                () = job::sleep_until(Some(next.timestamp().as_millisecond())) => {}
                () = engine.shutdown.begun() => return,
            }
        }
        if let Err(error) = engine.accept(timer.event(next.timestamp())).await {
            tracing::error!(ping = timer.ping.name, "lost: {error}");
        }
        // After a sleep of the machine the ticks in between are gone.
        last = Zoned::new(Timestamp::now().max(next.timestamp()), timer.zone.clone());
    }
}

impl Timer {
    fn event(&self, planned: Timestamp) -> Event {
        let ping = &self.ping;
        let is_json = ping.content_type.as_deref().is_none_or(|kind| kind.contains("json"));
        let data = match &ping.data {
            None => Data::None,
            Some(text) => match Json::read(text) {
                Ok(json) if is_json => Data::Json(json),
                _ => Data::Bytes(text.clone().into_bytes()),
            },
        };
        Event {
            source: ping_source(&ping.name),
            id: format!("{}@{planned}", ping.name),
            kind: "dev.knative.sources.ping".to_owned(),
            subject: None,
            time: Some(planned.to_string()),
            content_type: ping.content_type.clone(),
            data_schema: None,
            extensions: BTreeMap::new(),
            data,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::manifest::Destination;

    fn ping(schedule: &str, timezone: Option<&str>) -> Pipeline {
        let ping = Ping {
            name: "nightly".into(),
            schedule: schedule.into(),
            timezone: timezone.map(str::to_owned),
            content_type: Some("application/json".into()),
            data: Some("{\"a\":1}".into()),
            sink: Destination::Broker,
        };
        Pipeline { pings: vec![ping], ..Pipeline::default() }
    }

    #[test]
    fn schedules_are_in_their_time_zone_and_events_have_the_planned_time_in_their_id() {
        let summer: Timestamp = "2026-07-01T00:00:00Z".parse().unwrap();
        for (timezone, expected) in [
            (None, "2026-07-01T02:30:00Z"),
            (Some("Europe/Berlin"), "2026-07-01T00:30:00Z"),
            (Some("America/New_York"), "2026-07-01T06:30:00Z"),
        ] {
            let timer = checked(&ping("30 2 * * *", timezone)).unwrap().remove(0);
            let from = Zoned::new(summer, timer.zone.clone());
            let next = timer.cron.find_next_occurrence(&from, false).unwrap().timestamp();
            assert_eq!(next.to_string(), expected, "{timezone:?}");
            let event = timer.event(next);
            assert_eq!(event.id, format!("nightly@{expected}"));
            assert_eq!(event.object()["a"], 1);
        }
    }

    #[test]
    fn what_is_no_schedule_or_zone_is_refused_at_the_start() {
        for (schedule, timezone) in
            [("61 * * * *", None), ("soon", None), ("* * * * *", Some("Mars/Olympus"))]
        {
            let Err(error) = checked(&ping(schedule, timezone)) else {
                panic!("{schedule} {timezone:?} passes")
            };
            assert!(error.to_string().starts_with("ping nightly: "), "{error}");
        }
    }
}
