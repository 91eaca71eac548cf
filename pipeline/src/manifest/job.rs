//! Job sinks: long work, started as a process of its own by an event.

use std::time::Duration;

use serde_json::json;

use super::container::{self, LOCAL_COMMAND, LOCAL_FOLDER};
use super::env::Role;
use super::reader::{Fields, Value};
use super::set::{Annotations, Set, foreign, template_metadata};
use super::{JobSink, LocalRun, scalar};

/// Kubernetes' own.
const BACKOFF_LIMIT: u32 = 6;
const MAX_BACKOFF_LIMIT: u32 = 20;
/// If `activeDeadlineSeconds` is left out, which in a cluster is no limit.
pub const UNLIMITED_DEADLINE: Duration = Duration::from_secs(24 * 3600);
/// If `ttlSecondsAfterFinished` is left out, which in a cluster is for ever.
pub const UNLIMITED_KEEP: Duration = Duration::from_secs(7 * 24 * 3600);
const MAX_SECONDS: u32 = 30 * 24 * 3600;

/// Reads a job sink.
pub(super) fn read<'a>(root: &Value<'a>, set: &Set<'a>) -> Option<JobSink> {
    root.fields(|fields| {
        let metadata = set.metadata(fields, scalar::label);
        if let Some(metadata) = &metadata {
            foreign(&metadata.annotations, &[]);
        }
        let job = fields.required("spec").and_then(|spec| {
            spec.fields(|fields| {
                fields.required("job")?.fields(|fields| {
                    constant(fields, "apiVersion", "batch/v1");
                    constant(fields, "kind", "Job");
                    if let Some(metadata) = fields.get("metadata") {
                        metadata.fields(|fields| {
                            foreign(&template_metadata(fields).unwrap_or_default(), &[]);
                            Some(())
                        });
                    }
                    fields.required("spec").and_then(|spec| job(&spec, set))
                })
            })
        });
        let name = metadata?.name;
        let Job { container, backoff_limit, deadline, keep } = job?;
        let rest = json!([backoff_limit, deadline.as_secs(), keep.as_secs()]);
        let run: LocalRun = container.revised(&name, rest, set)?;
        Some(JobSink { name, run, backoff_limit, deadline, keep })
    })
}

struct Job<'a> {
    container: container::Container<'a>,
    backoff_limit: u32,
    deadline: Duration,
    keep: Duration,
}

fn job<'a>(spec: &Value<'a>, set: &Set<'a>) -> Option<Job<'a>> {
    spec.fields(|fields| {
        for key in ["parallelism", "completions"] {
            if let Some(value) = fields.get(key) {
                value.whole(1, 1);
            }
        }
        constant(fields, "completionMode", "NonIndexed");
        for key in ["podFailurePolicy", "backoffLimitPerIndex", "maxFailedIndexes", "successPolicy"] {
            fields.refused(key, "backoffLimit counts every failed attempt");
        }
        fields.refused("suspend", "a job starts with its event");
        let backoff_limit = match fields.get("backoffLimit") {
            Some(value) => value.whole(0, MAX_BACKOFF_LIMIT),
            None => Some(BACKOFF_LIMIT),
        };
        let (deadline, keep) = (fields.get("activeDeadlineSeconds"), fields.get("ttlSecondsAfterFinished"));
        for (value, name, stated) in [
            (&deadline, "activeDeadlineSeconds", UNLIMITED_DEADLINE),
            (&keep, "ttlSecondsAfterFinished", UNLIMITED_KEEP),
        ] {
            if value.is_none() {
                set.report.note(format!(
                    "{}: without {name} a cluster knows no limit; here it is {} s",
                    spec.object(),
                    stated.as_secs()
                ));
            }
        }
        let deadline = seconds(deadline.as_ref(), 1, UNLIMITED_DEADLINE);
        let keep = seconds(keep.as_ref(), 0, UNLIMITED_KEEP);
        let container = fields.required("template").and_then(|template| {
            template.fields(|fields| {
                let annotations = fields.get("metadata").map_or(Some(Annotations::new()), |value| {
                    value.fields(|fields| {
                        let annotations = template_metadata(fields)?;
                        foreign(&annotations, &[LOCAL_COMMAND, LOCAL_FOLDER]);
                        Some(annotations)
                    })
                });
                let annotations = annotations.unwrap_or_default();
                fields.required("spec")?.fields(|pod| {
                    if let Some(policy) = pod.required("restartPolicy")
                        && let Some(text) = policy.text()
                        && text != "Never"
                    {
                        policy.refuse(format!(
                            "{text:?} is not implemented: Never is; backoffLimit says how often it is tried"
                        ));
                    }
                    pod.refused("initContainers", "do it at the program's start");
                    pod.refused(
                        "terminationGracePeriodSeconds",
                        "a job that is ended has 30 s, as in Kubernetes; remove it",
                    );
                    container::read(pod, &annotations, Role::Job, set)
                })
            })
        });
        Some(Job { container: container?, backoff_limit: backoff_limit?, deadline: deadline?, keep: keep? })
    })
}

fn seconds(value: Option<&Value<'_>>, least: u32, default: Duration) -> Option<Duration> {
    match value {
        Some(value) => value.whole(least, MAX_SECONDS).map(|seconds| Duration::from_secs(u64::from(seconds))),
        None => Some(default),
    }
}

/// A field that may only have the value that it has without being said.
fn constant(fields: &Fields<'_, '_>, key: &'static str, wanted: &str) {
    if let Some(value) = fields.get(key)
        && let Some(text) = value.text()
        && text != wanted
    {
        value.refuse(format!("{text:?} is not implemented: {wanted} is"));
    }
}
