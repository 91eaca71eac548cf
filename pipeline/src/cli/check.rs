//! `baton pipeline check`: what a set of manifests describes, or everything that is wrong with it.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io::Write as _;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use baton_runner::cli::EXIT_USAGE;
use serde_json::{Value, json};

use crate::function;
use crate::manifest::{
    self, Advice, Backoff, Command, Delivery, Destination, Filter, Inspection, Level, LocalRun,
    ManifestErrors, Pipeline, printable,
};

/// What is checked, and how it is shown.
#[derive(Debug, Clone, clap::Args)]
pub struct CheckArgs {
    /// Manifest files, folders with them, a folder with a kustomization.yaml, or - for standard input
    #[arg(required = true, value_name = "PATH")]
    paths: Vec<PathBuf>,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// Checks and prints; 0 if the set is a pipeline, 64 if not.
pub(super) fn run(args: &CheckArgs) -> ExitCode {
    let found = manifest::inspect(&args.paths);
    let faults = found.as_ref().map_or(Vec::new(), |found| function::faults(&found.pipeline.services));
    let (text, errors) = match (found, args.json) {
        (Ok(_), true) if !faults.is_empty() => {
            let faults: Vec<Value> = faults.iter().map(|text| json!({ "text": text })).collect();
            (pretty(&json!({ "ok": false, "errors": faults, "more": 0 })), true)
        }
        (Ok(_), false) if !faults.is_empty() => {
            let _ = writeln!(std::io::stderr(), "{}", faults.join("\n"));
            (String::new(), true)
        }
        (Ok(found), false) => (picture(&found), false),
        (Ok(found), true) => (pretty(&described(&found)), false),
        (Err(errors), false) => {
            let _ = writeln!(std::io::stderr(), "{errors}\n{}", counted(&errors));
            (String::new(), true)
        }
        (Err(errors), true) => (pretty(&refused(&errors)), true),
    };
    // A closed pipe is no error of the pipeline.
    let _ = std::io::stdout().write_all(text.as_bytes());
    if errors { EXIT_USAGE.into() } else { ExitCode::SUCCESS }
}

fn counted(errors: &ManifestErrors) -> String {
    match errors.faults.len() + errors.more {
        1 => "1 error: nothing is started with this set".into(),
        count => format!("{count} errors: nothing is started with this set"),
    }
}

fn pretty(value: &Value) -> String {
    format!("{value:#}\n")
}

fn picture(found: &Inspection) -> String {
    let pipeline = &found.pipeline;
    let mut text = format!("broker {}\n", pipeline.broker);
    let mut section = |title: &str, header: &[&str], rows: Vec<Vec<String>>| {
        if !rows.is_empty() {
            let _ = write!(text, "\n{title}\n{}", table(header, rows));
        }
    };
    let triggers = pipeline.triggers.iter().map(|trigger| {
        let delivery = &trigger.delivery;
        vec![
            trigger.name.clone(),
            filter_text(&trigger.filter),
            destination_text(&trigger.subscriber),
            retries(delivery),
            delivery.dead_letter.as_ref().map_or("-".into(), destination_text),
        ]
    });
    section("triggers", &["name", "when", "fires", "retries", "dead letters"], triggers.collect());
    let services = pipeline.services.iter().map(|service| {
        vec![
            service.name.clone(),
            command_text(&service.run.command),
            format!("{}..{}", service.min_scale, service.max_scale),
            service.concurrency.to_string(),
            seconds(service.timeout),
            seconds(service.idle),
            memory(&service.run),
            cores(&service.run),
            service.run.revision.clone(),
        ]
    });
    let header = [
        "name",
        "runs",
        "instances",
        "calls each",
        "call ends after",
        "idle after",
        "memory",
        "cores",
        "revision",
    ];
    section("services", &header, services.collect());
    let jobs = pipeline.jobs.iter().map(|job| {
        vec![
            job.name.clone(),
            command_text(&job.run.command),
            job.run.folder.display().to_string(),
            (job.backoff_limit + 1).to_string(),
            seconds(job.deadline),
            seconds(job.keep),
            memory(&job.run),
            cores(&job.run),
            job.run.revision.clone(),
        ]
    });
    let header = ["name", "runs", "in", "attempts", "ends after", "kept for", "memory", "cores", "revision"];
    section("jobs", &header, jobs.collect());
    let pings = pipeline.pings.iter().map(|ping| {
        vec![
            ping.name.clone(),
            ping.schedule.clone(),
            ping.timezone.clone().unwrap_or_else(|| "UTC".into()),
            destination_text(&ping.sink),
        ]
    });
    section("timers", &["name", "schedule", "zone", "fires"], pings.collect());
    if !found.cluster_only.is_empty() {
        let _ = writeln!(text, "\nof the cluster only\n  {}", printable(&found.cluster_only.join(", ")));
    }
    let remarks = remarks(found);
    if !remarks.is_empty() {
        text.push('\n');
    }
    for (level, remark) in remarks {
        let _ = writeln!(text, "{level}: {}", printable(&remark));
    }
    text
}

/// Warnings, then what is only worth knowing.
fn remarks(found: &Inspection) -> Vec<(&'static str, String)> {
    let name = |level| match level {
        Level::Warning => "warning",
        Level::Info => "info",
    };
    let advice = manifest::advice(&found.pipeline);
    let mut remarks: Vec<(&str, String)> =
        advice.into_iter().map(|Advice { level, text }| (name(level), text)).collect();
    remarks.extend(found.notes.iter().map(|note| ("note", note.clone())));
    remarks
}

fn table(header: &[&str], rows: Vec<Vec<String>>) -> String {
    let cleaned = |row: Vec<String>| row.iter().map(|cell| printable(cell)).collect();
    let mut rows: Vec<Vec<String>> = rows.into_iter().map(cleaned).collect();
    rows.insert(0, header.iter().map(|&title| title.to_owned()).collect());
    let width = |column: usize| {
        rows.iter().filter_map(|row| row.get(column)).map(|cell| cell.chars().count()).max().unwrap_or(0)
    };
    let widths: Vec<usize> = (0..header.len()).map(width).collect();
    let mut text = String::new();
    for row in &rows {
        let cells: Vec<String> =
            row.iter().zip(&widths).map(|(cell, width)| format!("{cell:width$}")).collect();
        let _ = writeln!(text, "  {}", cells.join("  ").trim_end());
    }
    text
}

fn filter_text(filter: &Filter) -> String {
    let attributes = |wanted: &BTreeMap<String, String>, sign: &str| {
        let parts: Vec<String> = wanted
            .iter()
            .map(|(name, value)| match value.as_str() {
                "" => format!("has {name}"),
                value => format!("{name} {sign} {value}"),
            })
            .collect();
        parts.join(" and ")
    };
    let joined = |filters: &[Filter], word: &str| match filters {
        [] => "every event".to_owned(),
        [one] => filter_text(one),
        many => format!("({})", many.iter().map(filter_text).collect::<Vec<_>>().join(word)),
    };
    match filter {
        Filter::Exact(wanted) if wanted.is_empty() => "every event".into(),
        Filter::Exact(wanted) => attributes(wanted, "="),
        Filter::Prefix(wanted) => attributes(wanted, "begins with"),
        Filter::Suffix(wanted) => attributes(wanted, "ends with"),
        Filter::All(filters) => joined(filters, " and "),
        Filter::Any(filters) => joined(filters, " or "),
        Filter::Not(inner) => format!("not ({})", filter_text(inner)),
    }
}

fn destination_text(destination: &Destination) -> String {
    match destination {
        Destination::Service { name, path } if path == "/" => format!("service {name}"),
        Destination::Service { name, path } => format!("service {name}{path}"),
        Destination::Job { name } => format!("job {name}"),
        Destination::Url(url) => url.clone(),
        Destination::Broker => "the broker".into(),
    }
}

fn command_text(command: &Command) -> String {
    match command {
        Command::BuiltIn(words) => format!("baton {}", shell_words::join(words)),
        Command::Program(words) => shell_words::join(words),
    }
}

fn retries(delivery: &Delivery) -> String {
    let (delay, retry) = (seconds(delivery.delay), delivery.retry);
    match delivery.backoff {
        _ if retry == 0 => "none".into(),
        Backoff::Linear => format!("{retry}, from {delay} by as much"),
        Backoff::Exponential => format!("{retry}, from {delay} doubling"),
    }
}

fn seconds(duration: Duration) -> String {
    format!("{} s", duration.as_secs_f64())
}

fn memory(run: &LocalRun) -> String {
    run.memory.map_or("-".into(), |bytes| format!("{} MiB", bytes >> 20))
}

fn cores(run: &LocalRun) -> String {
    run.cpu_millis.map_or("-".into(), |millis| (f64::from(millis) / 1000.0).to_string())
}

fn refused(errors: &ManifestErrors) -> Value {
    let faults: Vec<Value> = errors
        .faults
        .iter()
        .map(|fault| {
            json!({
                "file": fault.file, "document": fault.document, "line": fault.line, "object": fault.object,
                "field": fault.field, "text": fault.text,
            })
        })
        .collect();
    json!({"ok": false, "errors": faults, "more": errors.more})
}

fn described(found: &Inspection) -> Value {
    let Pipeline { broker, triggers, services, jobs, pings } = &found.pipeline;
    let run = |run: &LocalRun| {
        // Values of variables may be secret.
        json!({
            "command": command_text(&run.command), "built_in": matches!(run.command, Command::BuiltIn(_)),
            "folder": run.folder, "variables": run.env.keys().collect::<Vec<_>>(), "memory_bytes": run.memory,
            "cpu_millis": run.cpu_millis, "revision": run.revision,
        })
    };
    let triggers: Vec<Value> = triggers
        .iter()
        .map(|trigger| {
            let Delivery { retry, backoff, delay, timeout, dead_letter } = &trigger.delivery;
            let backoff = match backoff {
                Backoff::Linear => "linear",
                Backoff::Exponential => "exponential",
            };
            json!({
                "name": trigger.name, "when": filter_text(&trigger.filter), "fires": destination_text(&trigger.subscriber),
                "retry": retry, "backoff": backoff, "delay_s": delay.as_secs_f64(),
                "timeout_s": timeout.map(|timeout| timeout.as_secs_f64()),
                "dead_letters": dead_letter.as_ref().map(destination_text),
            })
        })
        .collect();
    let services: Vec<Value> = services
        .iter()
        .map(|service| {
            json!({
                "name": service.name, "run": run(&service.run), "min_scale": service.min_scale,
                "max_scale": service.max_scale, "concurrency": service.concurrency,
                "timeout_s": service.timeout.as_secs_f64(), "idle_s": service.idle.as_secs_f64(),
            })
        })
        .collect();
    let jobs: Vec<Value> = jobs
        .iter()
        .map(|job| {
            json!({
                "name": job.name, "run": run(&job.run), "backoff_limit": job.backoff_limit,
                "deadline_s": job.deadline.as_secs_f64(), "keep_s": job.keep.as_secs_f64(),
            })
        })
        .collect();
    let pings: Vec<Value> = pings
        .iter()
        .map(|ping| {
            json!({
                "name": ping.name, "schedule": ping.schedule, "timezone": ping.timezone,
                "fires": destination_text(&ping.sink),
            })
        })
        .collect();
    let remarks: Vec<Value> =
        remarks(found).into_iter().map(|(level, text)| json!({"level": level, "text": text})).collect();
    json!({
        "ok": true, "broker": broker, "triggers": triggers, "services": services, "jobs": jobs, "timers": pings,
        "cluster_only": found.cluster_only, "remarks": remarks,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample() -> PathBuf {
        PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/sample/digits/pipeline.yaml"))
    }

    #[test]
    fn the_picture_shows_who_is_fired_by_what_and_the_limits() {
        let text = picture(&manifest::inspect(&[sample()]).unwrap());
        let row = |parts: &[&str]| text.lines().any(|line| parts.iter().all(|part| line.contains(part)));
        assert!(
            row(&["validate", "type = dev.baton.dataset.updated.v1", "service validate", "9, from 1 s"]),
            "{text}"
        );
        assert!(row(&["evaluate", "baton fn evaluate", "0..2", "300 s", "60 s"]), "{text}");
        assert!(row(&["train", "python3 train.py", "3600 s", "2048 MiB"]), "{text}");
        assert!(row(&["warning", "no deadLetterSink"]), "{text}");
    }

    #[test]
    fn what_a_terminal_would_obey_is_left_out() {
        let text = table(&["runs"], vec![vec!["a\u{1b}[2Jb\nc".to_owned()]]);
        assert_eq!(text, "  runs\n  a[2Jbc\n");
    }

    #[test]
    fn json_names_variables_and_shows_no_values() {
        let value = described(&manifest::inspect(&[sample()]).unwrap());
        assert_eq!(value["ok"], true);
        assert_eq!(value["services"][0]["run"]["variables"], json!(["BATON_POLICY"]));
        assert!(!value.to_string().contains("holdout"), "{value}");
    }

    #[test]
    fn the_exit_code_says_whether_the_set_is_a_pipeline() {
        let code = |path: PathBuf, json: bool| run(&CheckArgs { paths: vec![path], json });
        assert_eq!(code(sample(), true), ExitCode::SUCCESS);
        for json in [false, true] {
            assert_eq!(code("nowhere.yaml".into(), json), ExitCode::from(64));
        }
    }
}
