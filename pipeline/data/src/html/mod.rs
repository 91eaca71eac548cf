//! A report as one page: no script, no other file, readable in light and dark. Everything that comes from data is
//! escaped, names and cells of strangers among it.

mod plot;

use std::fmt::Write as _;

use crate::change::{ColumnDrift, Drift, class_shares};
use crate::check::{Report, Verdict};
use crate::finding::Finding;
use crate::outliers::OutlierReport;
use crate::profile::{ColumnProfile, Profile};

/// Columns that are drawn.
const MOST_COLUMNS: usize = 100;
/// Findings that are shown of each sort.
const MOST_FINDINGS: usize = 200;

const STYLE: &str = include_str!("style.css");

/// The report as an HTML page.
pub fn html(report: &Report) -> String {
    let mut page = String::new();
    let (verdict, class) = match report.verdict {
        Verdict::Accepted => ("accepted", "good"),
        Verdict::Rejected => ("rejected", "bad"),
        Verdict::NeedsReview => ("needs review", "odd"),
    };
    let dataset = escaped(&report.dataset);
    let _ = write!(
        page,
        "<!DOCTYPE html><html lang=\"en\"><head><meta charset=\"utf-8\">\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\
         <meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'\">\
         <title>{dataset}: {verdict}</title><style>{STYLE}</style></head><body><main>\
         <h1>{dataset} <span class=\"badge {class}\">{verdict}</span></h1>"
    );
    facts(&mut page, report);
    findings(&mut page, "Reasons", "bad", &report.reasons);
    findings(&mut page, "Warnings", "odd", &report.warnings);
    if let Some(change) = &report.change {
        let changed = change
            .changed
            .map(|rows| format!("{rows} with other cells under the same key, "))
            .unwrap_or_default();
        let _ = write!(
            page,
            "<h2>Since the version before</h2><p>{} rows added, {} removed, {changed}{} kept.</p><p class=\"dim\">{}</p>",
            change.added,
            change.removed,
            change.kept,
            escaped(&change.against)
        );
    }
    report.drift.iter().for_each(|drift| drifted(&mut page, drift));
    if let Some(outliers) = &report.outliers {
        outlying(&mut page, outliers);
    }
    if let Some(profile) = &report.profile {
        columns(&mut page, profile, report.drift.first());
    }
    page.push_str("</main></body></html>\n");
    page
}

fn facts(page: &mut String, report: &Report) {
    page.push_str("<table class=\"facts\">");
    let mut fact = |name: &str, value: String| {
        let _ = write!(page, "<tr><th>{name}</th><td>{}</td></tr>", escaped(&value));
    };
    fact("file", format!("{} ({} bytes)", report.file, report.size));
    fact("digest", report.digest.clone());
    fact("policy", report.policy.clone());
    if let Some(origin) = &report.origin {
        fact("origin", origin.clone());
    }
    if let Some(profile) = &report.profile {
        fact(
            "rows",
            format!(
                "{} in {} columns, {} copies of others",
                profile.rows,
                profile.columns.len(),
                profile.duplicate_rows
            ),
        );
    }
    if let Some(split) = &report.split {
        fact(
            "parts",
            format!(
                "{} rows for training ({} dropped, {} cells replaced), {} held out",
                split.training_rows, split.dropped_rows, split.imputed_cells, split.holdout_rows
            ),
        );
    }
    if let Some(growth) = &report.growth {
        let z = |z: Option<f64>| z.map_or_else(|| "not enough history".to_owned(), |z| format!("{z:.2}"));
        fact(
            "growth",
            format!(
                "robust z of bytes: {}, of rows: {} (versions before: {})",
                z(growth.bytes_z),
                z(growth.rows_z),
                growth.history
            ),
        );
    }
    page.push_str("</table>");
}

fn findings(page: &mut String, title: &str, class: &str, findings: &[Finding]) {
    if findings.is_empty() {
        return;
    }
    let _ = write!(page, "<h2>{title}</h2><ul class=\"findings\">");
    for finding in findings.iter().take(MOST_FINDINGS) {
        let _ = write!(
            page,
            "<li><code class=\"{class}\" title=\"{}\">{}</code> {}</li>",
            escaped(finding.code.meaning()),
            finding.code.id(),
            escaped(&finding.text)
        );
    }
    if findings.len() > MOST_FINDINGS {
        let _ = write!(page, "<li>and {} more</li>", findings.len() - MOST_FINDINGS);
    }
    page.push_str("</ul>");
}

fn drifted(page: &mut String, drift: &Drift) {
    let _ = write!(
        page,
        "<h2>Drift against the {} data</h2><p class=\"dim\">{}; population stability index, the mark is what chance alone \
         exceeds once in a thousand times</p>",
        escaped(&drift.reference),
        escaped(&drift.against)
    );
    page.push_str(&plot::drift_bars(&drift.columns));
}

fn outlying(page: &mut String, outliers: &OutlierReport) {
    let _ = write!(
        page,
        "<h2>Outliers</h2><p>{} rows marked, {:.2} %; looked at: {}</p>",
        outliers.flagged,
        outliers.share * 100.0,
        escaped(&outliers.columns.iter().take(30).cloned().collect::<Vec<_>>().join(", "))
    );
    page.push_str("<div class=\"wide\"><table><tr><th>method</th><th>marked</th><th>rows</th><th>parameters</th><th>why</th></tr>");
    for method in &outliers.methods {
        let rows: Vec<String> = method.rows.iter().take(10).map(u64::to_string).collect();
        let more = if method.rows.len() > 10 { ", ..." } else { "" };
        let parameters: Vec<String> =
            method.parameters.iter().map(|(name, value)| format!("{name} = {value}")).collect();
        let _ = write!(
            page,
            "<tr><td>{}</td><td>{}</td><td>{}{more}</td><td>{}</td><td>{}</td></tr>",
            escaped(&method.method),
            method.flagged,
            rows.join(", "),
            escaped(&parameters.join(", ")),
            escaped(&method.why)
        );
    }
    page.push_str("</table></div>");
    if let Some(scatter) = &outliers.scatter {
        page.push_str(&plot::scatter(scatter));
    }
}

fn columns(page: &mut String, profile: &Profile, drift: Option<&Drift>) {
    if !profile.classes.is_empty() {
        page.push_str("<h2>Labels</h2>");
        page.push_str(&plot::share_bars(&class_shares(profile)));
    }
    page.push_str(
        "<h2>Columns</h2><p class=\"dim\">Filled: this version. Line: the reference, where there is one. Below: smallest, \
         quartiles and largest value.</p><div class=\"cards\">",
    );
    for column in profile.columns.iter().take(MOST_COLUMNS) {
        let moved = drift.and_then(|drift| drift.columns.iter().find(|moved| moved.column == column.name));
        card(page, column, moved, profile.rows);
    }
    page.push_str("</div>");
    if profile.columns.len() > MOST_COLUMNS {
        let _ = write!(
            page,
            "<p>and {} more columns, in the report's JSON</p>",
            profile.columns.len() - MOST_COLUMNS
        );
    }
}

fn card(page: &mut String, column: &ColumnProfile, moved: Option<&ColumnDrift>, rows: u64) {
    let more = if column.distinct_more { " or more" } else { "" };
    let _ = write!(
        page,
        "<section><h3>{} <small>{}</small></h3><p class=\"dim\">{} different{more}, {} of {rows} without a value",
        escaped(&column.name),
        column.kind.id(),
        column.distinct,
        column.nulls
    );
    if let Some(moved) = moved {
        let _ = write!(page, ", PSI {:.3}", moved.psi);
    }
    if let (Some(mean), Some(std)) = (column.mean, column.std) {
        let _ = write!(page, "; mean {}, deviation {}", plot::short(mean), plot::short(std));
    }
    page.push_str("</p>");
    page.push_str(&plot::column(column, moved.and_then(|moved| moved.shape.as_ref())));
    page.push_str("</section>");
}

/// Text for HTML, in elements and in quoted attributes.
fn escaped(text: &str) -> String {
    let mut safe = String::with_capacity(text.len());
    for char in text.chars() {
        match char {
            '&' => safe.push_str("&amp;"),
            '<' => safe.push_str("&lt;"),
            '>' => safe.push_str("&gt;"),
            '"' => safe.push_str("&quot;"),
            '\'' => safe.push_str("&#39;"),
            // What turns the direction of writing could show one name for another.
            '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' => safe.push('\u{fffd}'),
            char if char.is_control() && char != '\n' => safe.push('\u{fffd}'),
            char => safe.push(char),
        }
    }
    safe
}

#[cfg(test)]
mod tests;
