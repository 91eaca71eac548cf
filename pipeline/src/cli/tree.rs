//! Lineage as a tree of text.

use baton_runner::cli::output::short;
use serde_json::Value;

use crate::records::lineage::Lineage;

/// Runs that are told in full; of more, each is one line.
const IN_FULL: usize = 3;
/// Earlier versions of a dataset that are told.
const EARLIER: usize = 5;

/// A line with what stands below it.
struct Branch {
    text: String,
    below: Vec<Branch>,
}

impl Branch {
    fn leaf(text: String) -> Self {
        Self { text, below: Vec::new() }
    }

    fn write(&self, indent: &str, lines: &mut Vec<String>) {
        for (index, branch) in self.below.iter().enumerate() {
            let is_last = index + 1 == self.below.len();
            lines.push(format!("{indent}{}{}", if is_last { "└─ " } else { "├─ " }, branch.text));
            branch.write(&format!("{indent}{}", if is_last { "   " } else { "│  " }), lines);
        }
    }
}

/// The lines of the tree: what was asked for, below it the runs, below each what it used, found and made.
pub(super) fn lines(lineage: &Lineage) -> Vec<String> {
    let subject = &lineage.subject;
    let roles: Vec<&str> = subject.roles.iter().map(String::as_str).collect();
    let head = match roles[..] {
        [] => format!("{} {}", subject.kind, subject.value),
        _ => format!("{} {}", roles.join(", "), subject.value),
    };
    let is_full = lineage.runs.len() <= IN_FULL;
    let below = lineage.runs.iter().map(|run| Branch {
        text: head_of(run),
        below: if is_full { branches(run, lineage) } else { Vec::new() },
    });
    let mut root = Branch { text: head, below: below.collect() };
    if lineage.truncated {
        root.below.push(Branch::leaf("... and earlier ones; baton history --where finds them".to_owned()));
    }
    let mut lines = vec![root.text.clone()];
    root.write("", &mut lines);
    lines
}

fn head_of(run: &Value) -> String {
    let text = |name: &str| run[name].as_str().map(str::to_owned);
    let version = text("version").zip(text("model")).map(|(version, model)| format!("{model}@{version}"));
    let cost = run["cost"]["cpu_s"].as_f64().map(|cpu| {
        format!(
            "cpu {cpu:.1} s, wall {:.1} s, {:.0} MB",
            run["cost"]["wall_s"].as_f64().unwrap_or(0.0),
            run["cost"]["max_rss_mb"].as_f64().unwrap_or(0.0)
        )
    });
    let parts = [
        Some(format!("run {}", text("run").unwrap_or_default())),
        text("state"),
        version.or(text("model")),
        text("started"),
        text("who").map(|who| format!("by {who}")),
        cost,
    ];
    parts.into_iter().flatten().collect::<Vec<_>>().join("  ")
}

fn branches(run: &Value, lineage: &Lineage) -> Vec<Branch> {
    let mut below = Vec::new();
    let mut add = |name: &str, parts: &[Option<String>]| {
        let parts: Vec<&str> =
            parts.iter().flatten().map(String::as_str).filter(|part| !part.is_empty()).collect();
        if !parts.is_empty() {
            below.push(Branch::leaf(format!("{name:<11} {}", parts.join("  "))));
        }
    };
    let text = |value: &Value| value.as_str().map(str::to_owned);
    let digest = |value: &Value| value["digest"].as_str().map(|digest| short(digest).to_owned());
    let served = run["generation"].as_u64().map(|generation| format!("generation {generation}"));
    add("served", &[text(&run["digest"]), served]);
    add("replaced", &[text(&run["previous_digest"])]);
    let from_before = (run["reused"] == true).then(|| "of an earlier run".to_owned());
    add("bundle", &[text(&run["bundle"]["digest"]), from_before]);
    let verdict = ["rule"].iter().filter_map(|name| text(&run[*name])).next();
    add("verdict", &[text(&run["verdict"]), verdict]);
    add("reasons", &[reasons(&run["reasons"])]);
    add("metrics", &[group(&run["metrics"])]);
    add("candidate", &[group(&run["candidate"])]);
    add("active", &[group(&run["active"])]);
    add("parameters", &[group(&run["parameters"])]);
    let commit = text(&run["code"]["commit"]).map(|commit| format!("commit {commit}"));
    add("code", &[commit, digest(&run["code"])]);
    let python = text(&run["environment"]["python"]).map(|python| format!("Python {python}"));
    let packages = run["environment"]["packages"].as_object().map(|all| match all.len() {
        1 => "1 package".to_owned(),
        count => format!("{count} packages"),
    });
    add("environment", &[python, packages, digest(&run["environment"])]);
    add("report", &[text(&run["report"]["digest"])]);
    let data = &run["dataset"];
    let rows = data["rows"].as_u64().map(|rows| format!("{rows} rows"));
    add("data", &[text(&data["name"]), text(&data["file"]), rows, text(&data["digest"])]);
    let earlier = data["digest"].as_str().and_then(|digest| lineage.earlier.get(digest));
    if let (Some(branch), Some(earlier)) = (below.last_mut(), earlier.filter(|earlier| !earlier.is_empty())) {
        branch.below = earlier
            .iter()
            .rev()
            .take(EARLIER)
            .map(|version| {
                let rows = version.rows.map_or_else(String::new, |rows| format!("{rows} rows"));
                let parts = [
                    version.file.as_deref().unwrap_or_default(),
                    &rows,
                    version.started.as_deref().unwrap_or_default(),
                    short(&version.digest),
                ];
                Branch::leaf(format!("before it  {}", parts.join("  ")))
            })
            .collect();
    }
    below
}

fn reasons(reasons: &Value) -> Option<String> {
    let texts = reasons.as_array()?.iter().map(|reason| {
        let text = |name: &str| reason[name].as_str().unwrap_or_default();
        format!("{} {}", text("code"), text("text")).trim().to_owned()
    });
    Some(texts.collect::<Vec<_>>().join("; "))
}

/// `depth=3, kind=tree`
fn group(values: &Value) -> Option<String> {
    let pairs = values.as_object()?.iter().map(|(name, value)| match value {
        Value::String(text) => format!("{name}={text}"),
        value => format!("{name}={value}"),
    });
    Some(pairs.collect::<Vec<_>>().join(", "))
}
