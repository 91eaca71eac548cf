//! Services of Knative Serving: functions.

use std::time::Duration;

use serde_json::json;

use super::container::{self, LOCAL_COMMAND, LOCAL_FOLDER};
use super::delivery::MAX_CALL;
use super::env::Role;
use super::reader::Value;
use super::set::{Annotations, Set, foreign, template_metadata};
use super::{Ready, Service, scalar};

/// Requests at a time in one instance if `containerConcurrency` is 0, which in Knative is no limit; the number that its
/// autoscaler then aims at.
pub const UNLIMITED_CONCURRENCY: u32 = 100;
/// Instances if `max-scale` is 0 or left out, which in Knative is no limit.
pub const UNLIMITED_SCALE: u32 = 8;
const MAX_SCALE: u32 = 1000;
const MAX_CONCURRENCY: u32 = 1000;
/// Knative's stable window.
const WINDOW: Duration = Duration::from_secs(60);
const CALL: u32 = 300;

const MIN: &str = "autoscaling.knative.dev/min-scale";
const MAX: &str = "autoscaling.knative.dev/max-scale";
const WINDOW_NAME: &str = "autoscaling.knative.dev/window";
const RETENTION: &str = "autoscaling.knative.dev/scale-to-zero-pod-retention-period";

struct Scale {
    min: u32,
    max: u32,
    idle: Duration,
}

/// Reads a service.
pub(super) fn read<'a>(root: &Value<'a>, set: &Set<'a>) -> Option<Service> {
    root.fields(|fields| {
        let metadata = set.metadata(fields, scalar::service_name);
        if let Some(metadata) = &metadata {
            foreign(&metadata.annotations, &[]);
        }
        let template = fields.required("spec").and_then(|spec| {
            spec.fields(|fields| {
                fields.refused("traffic", "the newest revision gets every request; remove it");
                fields.required("template")?.fields(|fields| {
                    let annotations =
                        fields.get("metadata").map_or(Some(Annotations::new()), |value| template(&value));
                    let annotations = annotations.unwrap_or_default();
                    let scale = scale(&annotations, root);
                    let spec = fields.required("spec").and_then(|spec| revision(&spec, &annotations, set));
                    Some((scale?, spec?))
                })
            })
        });
        let name = metadata?.name;
        let (scale, revision) = template?;
        let ready = match &revision.container.ready {
            Ready::Port => json!(null),
            Ready::Path(path) => json!(path),
        };
        let Revision { container, concurrency, timeout } = revision;
        let rest = json!([
            concurrency,
            timeout.as_secs(),
            scale.min,
            scale.max,
            scale.idle.as_millis().to_string(),
            ready
        ]);
        let ready = container.ready.clone();
        Some(Service {
            run: container.revised(&name, rest, set)?,
            name,
            concurrency,
            min_scale: scale.min,
            max_scale: scale.max,
            timeout,
            idle: scale.idle,
            ready,
        })
    })
}

struct Revision<'a> {
    container: container::Container<'a>,
    concurrency: u32,
    timeout: Duration,
}

fn template<'a>(value: &Value<'a>) -> Option<Annotations<'a>> {
    value.fields(|fields| {
        fields.refused("name", "revisions are named by their digest; remove it");
        let annotations = template_metadata(fields)?;
        foreign(&annotations, &[MIN, MAX, WINDOW_NAME, RETENTION, LOCAL_COMMAND, LOCAL_FOLDER]);
        Some(annotations)
    })
}

fn revision<'a>(spec: &Value<'a>, annotations: &Annotations<'a>, set: &Set<'a>) -> Option<Revision<'a>> {
    spec.fields(|fields| {
        for key in ["responseStartTimeoutSeconds", "idleTimeoutSeconds"] {
            fields.refused(key, "timeoutSeconds is");
        }
        fields.refused("initContainers", "do it at the program's start");
        let concurrency = match fields.get("containerConcurrency") {
            Some(value) => value.whole(0, MAX_CONCURRENCY),
            None => Some(0),
        };
        let timeout = match fields.get("timeoutSeconds") {
            Some(value) => {
                let longest = u32::try_from(MAX_CALL.as_secs()).unwrap_or(u32::MAX);
                value.whole(0, longest).map(|seconds| if seconds == 0 { CALL } else { seconds })
            }
            None => Some(CALL),
        };
        let container = container::read(fields, annotations, Role::Service, set);
        let concurrency = match concurrency? {
            0 => {
                set.report.note(format!(
                    "{}: containerConcurrency 0 is no limit in a cluster; here it is {UNLIMITED_CONCURRENCY}",
                    spec.object()
                ));
                UNLIMITED_CONCURRENCY
            }
            number => number,
        };
        Some(Revision {
            container: container?,
            concurrency,
            timeout: Duration::from_secs(u64::from(timeout?)),
        })
    })
}

fn scale(annotations: &Annotations<'_>, root: &Value<'_>) -> Option<Scale> {
    let number = |name: &str| match annotations.get(name) {
        Some(value) => value.parsed(|text| match text.parse::<u32>() {
            Ok(number) if number <= MAX_SCALE => Ok(number),
            _ => Err(format!("{text:?} is no whole number from 0 to {MAX_SCALE}")),
        }),
        None => Some(0),
    };
    let length = |name: &str, least: u64, default: Duration| match annotations.get(name) {
        Some(value) => value.parsed(|text| {
            let parse = if name == WINDOW_NAME { scalar::whole_seconds } else { scalar::go_duration };
            let length = parse(text)?;
            if length < Duration::from_secs(least) || length > Duration::from_secs(3600) {
                return Err(format!("{text:?} is not from {least}s to 1h"));
            }
            Ok(length)
        }),
        None => Some(default),
    };
    let (min, max) = (number(MIN), number(MAX));
    let (window, retention) = (length(WINDOW_NAME, 6, WINDOW), length(RETENTION, 0, Duration::ZERO));
    let (min, max) = (min?, max?);
    if max > 0
        && min > max
        && let Some(value) = annotations.get(MIN)
    {
        value.refuse(format!("min-scale {min} is more than max-scale {max}"));
        return None;
    }
    let max = if max == 0 {
        let stated = UNLIMITED_SCALE.max(min);
        root.report().note(format!(
            "{}: without max-scale a cluster starts instances without limit; here it is {stated}",
            root.object()
        ));
        stated
    } else {
        max
    };
    Some(Scale { min, max, idle: window? + retention? })
}
