//! The join itself: find the row of each label, then write those rows.

use std::collections::BTreeSet;
use std::fmt;
use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::Path;

use serde::Serialize;
use sha2::{Digest, Sha256};

use super::labels::{Found, Labels};
use super::log::{Again, Cell, Line, Log, Place};
use super::output::Output;
use super::{Conflicts, FeedbackError, Join, Prefer, Window};

/// What became of rows and labels.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Report {
    /// Rows of the dataset that is written.
    pub rows: usize,
    /// Of those, rows that the earlier dataset has.
    pub appended_to: usize,
    /// Logged rows with a label, which are the new rows.
    pub matched: usize,
    /// Logged rows of the window without one.
    pub unlabeled: usize,
    /// Labels without a logged row: not sampled, or outside of the window.
    pub unmatched_labels: usize,
    /// Lines of the label file whose label is empty.
    pub empty_labels: usize,
    /// Labels given again, the same as before.
    pub repeated_labels: usize,
    /// Labels given again, and not the same.
    pub conflicting_labels: usize,
    /// Rows logged again with the same inputs: a request that was sent again.
    pub repeated_rows: usize,
    /// Rows logged again with other inputs, of which one was taken.
    pub differing_rows: usize,
    /// Logged rows that the window leaves out.
    pub outside: usize,
    /// Lines that are none of a request log.
    pub unreadable_lines: usize,
    /// Labelled rows with a value that no cell can hold.
    pub unusable_rows: usize,
    /// Columns that are masked in the log, and so not in the dataset.
    pub masked_columns: BTreeSet<String>,
    pub columns: Vec<String>,
}

impl fmt::Display for Report {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let counts = [
            ("matched", self.matched),
            ("unlabeled", self.unlabeled),
            ("unmatched labels", self.unmatched_labels),
            ("empty labels", self.empty_labels),
            ("repeated labels", self.repeated_labels),
            ("conflicting labels", self.conflicting_labels),
            ("repeated rows", self.repeated_rows),
            ("differing rows", self.differing_rows),
            ("outside the window", self.outside),
            ("unreadable lines", self.unreadable_lines),
            ("unusable rows", self.unusable_rows),
        ];
        // The first two are told even if there are none.
        let told = counts.iter().enumerate().filter(|(index, (_, count))| *index < 2 || *count > 0);
        let told: Vec<String> = told.map(|(_, (name, count))| format!("{count} {name}")).collect();
        formatter.write_str(&told.join(", "))?;
        if !self.masked_columns.is_empty() {
            let names: Vec<&str> = self.masked_columns.iter().map(String::as_str).collect();
            write!(formatter, "; masked and left out: {}", names.join(", "))?;
        }
        Ok(())
    }
}

/// The logged row of a label.
#[derive(Debug, Clone, Copy)]
struct Hit {
    /// Microseconds since the epoch.
    time: i64,
    place: Place,
    /// Of the inputs.
    fingerprint: [u8; 16],
}

/// Joins log and labels and writes the dataset; nothing is written if anything is refused.
///
/// # Errors
/// See [`FeedbackError`].
pub fn join(join: &Join) -> Result<Report, FeedbackError> {
    let labels = Labels::read(&join.labels, &join.on, join.label.as_deref())?;
    let log = Log::open(&join.log)?;
    let mut report = Report {
        empty_labels: labels.empty,
        repeated_labels: labels.repeated,
        conflicting_labels: labels.conflicting,
        ..Report::default()
    };
    let found = find(&log, &labels, &join.window, join.prefer, &mut report)?;
    let Matches { hits, columns } = found;
    report.matched = hits.iter().flatten().count();
    report.unmatched_labels = labels.all.len() - report.matched;
    let Some(columns) = columns else { return Err(FeedbackError::Nothing(Box::new(report))) };
    // Only of labels that a logged row has: the others matter to nobody.
    let matched = labels.all.iter().zip(&hits).filter(|(_, hit)| hit.is_some());
    let conflicts: Vec<u64> = matched.filter_map(|(label, _)| label.conflict).collect();
    if let (Conflicts::Refuse, Some(line)) = (join.conflicts, conflicts.iter().min()) {
        return Err(FeedbackError::Conflicts { count: conflicts.len(), line: *line });
    }
    if columns.names.is_empty() {
        return Err(FeedbackError::Columns(
            "every input is masked in the log, so that the rows would have a label and nothing else"
                .to_owned(),
        ));
    }
    if columns.names.contains(&labels.column) {
        return Err(FeedbackError::Columns(format!(
            "the label's column {:?} has the name of an input; rename it in the file of labels",
            labels.column
        )));
    }
    write(join, &log, &labels, &hits, columns, report)
}

/// What the first pass finds.
struct Matches {
    /// By position of the label.
    hits: Vec<Option<Hit>>,
    columns: Option<Columns>,
}

/// The columns of all rows, and whose row had them first.
struct Columns {
    names: Vec<String>,
    version: String,
    digest: String,
    id: String,
    row: u64,
}

fn find(
    log: &Log,
    labels: &Labels,
    window: &Window,
    prefer: Prefer,
    report: &mut Report,
) -> Result<Matches, FeedbackError> {
    let mut hits: Vec<Option<Hit>> = vec![None; labels.all.len()];
    let mut columns: Option<Columns> = None;
    let mut without_row = BTreeSet::new();
    let mut ambiguous = BTreeSet::new();
    log.each_line(|place, bytes| {
        let Some(line) = bytes.and_then(Line::parse) else {
            report.unreadable_lines += 1;
            return Ok(());
        };
        if !window.has(&line) {
            report.outside += 1;
            return Ok(());
        }
        let label = match labels.of(&line.id, line.row, line.rows) {
            Found::Label(label) => label,
            Found::NoRow(label) => {
                without_row.insert(labels.all.get(label).map_or(0, |label| label.line));
                return Ok(());
            }
            Found::Nothing => {
                report.unlabeled += 1;
                return Ok(());
            }
        };
        let Some(cells) = line.cells() else {
            report.unusable_rows += 1;
            return Ok(());
        };
        report.masked_columns.extend(line.masked.keys().cloned());
        Columns::agree(&mut columns, &line, &cells)?;
        let mut fingerprint = [0; 16];
        let digest = Sha256::digest(line.inputs.get().as_bytes());
        fingerprint.iter_mut().zip(digest).for_each(|(to, from)| *to = from);
        let hit = Hit { time: line.time.as_microsecond(), place, fingerprint };
        let Some(known) = hits.get_mut(label) else { return Ok(()) };
        match known {
            None => *known = Some(hit),
            Some(known) if known.fingerprint == hit.fingerprint => {
                report.repeated_rows += 1;
                known.take_if(&hit, Prefer::First);
            }
            Some(known) => {
                report.differing_rows += 1;
                ambiguous.insert(labels.all.get(label).map_or(0, |label| label.line));
                known.take_if(&hit, prefer);
            }
        }
        Ok(())
    })?;
    if let Some(line) = without_row.first() {
        return Err(FeedbackError::NoRow { count: without_row.len(), line: *line });
    }
    match (prefer, ambiguous.first()) {
        (Prefer::Refuse, Some(line)) => Err(FeedbackError::Ambiguous { count: ambiguous.len(), line: *line }),
        _ => Ok(Matches { hits, columns }),
    }
}

impl Window {
    fn has(&self, line: &Line<'_>) -> bool {
        self.since.is_none_or(|since| line.time >= since)
            && self.until.is_none_or(|until| line.time < until)
            && self.digest.as_deref().is_none_or(|digest| line.digest == digest)
    }
}

impl Hit {
    /// Becomes the other one if that is to be preferred. Rows of one moment have the order of their places.
    fn take_if(&mut self, other: &Self, prefer: Prefer) {
        let is_later = (other.time, other.place) > (self.time, self.place);
        if is_later == (prefer == Prefer::Last) {
            *self = *other;
        }
    }
}

impl Columns {
    /// Refuses rows that have other columns than those before them.
    fn agree(known: &mut Option<Self>, line: &Line<'_>, cells: &[Cell<'_>]) -> Result<(), FeedbackError> {
        let names = || cells.iter().map(|(name, _)| name);
        match known {
            None => {
                *known = Some(Self {
                    names: names().cloned().collect(),
                    version: line.version.to_string(),
                    digest: line.digest.to_string(),
                    id: line.id.to_string(),
                    row: line.row,
                });
                Ok(())
            }
            Some(known) if known.names.iter().eq(names()) => Ok(()),
            Some(known) => {
                let (one, other): (BTreeSet<&String>, BTreeSet<&String>) =
                    (known.names.iter().collect(), names().collect());
                if one == other {
                    return Ok(());
                }
                let differ: Vec<&str> =
                    one.symmetric_difference(&other).take(5).map(|name| name.as_str()).collect();
                let differ = differ.join(", ");
                Err(FeedbackError::Columns(if known.digest == line.digest {
                    format!(
                        "row {} of request {:?} and row {} of request {:?} have different columns ({differ} ...): an input \
                         of changing length makes no table",
                        known.row, known.id, line.row, line.id
                    )
                } else {
                    format!(
                        "rows of version {} and of version {} have different columns ({differ} ...); take those of one: \
                         --digest {} or --digest {}",
                        known.version, line.version, known.digest, line.digest
                    )
                }))
            }
        }
    }
}

fn write(
    join: &Join,
    log: &Log,
    labels: &Labels,
    hits: &[Option<Hit>],
    columns: Columns,
    mut report: Report,
) -> Result<Report, FeedbackError> {
    let failed = |error| FeedbackError::file("write", &join.out, error);
    let mut to = Output::of(&join.out).map_err(failed)?;
    let mut writer = csv::Writer::from_writer(BufWriter::with_capacity(256 << 10, to.file()));
    let unwritten = |error: csv::Error| failed(std::io::Error::other(error));

    let mut names = columns.names;
    names.push(labels.column.clone());
    if let Some(earlier) = &join.append {
        (names, report.appended_to) = copy_earlier(earlier, &names, &mut writer)?;
    } else {
        writer.write_record(&names).map_err(unwritten)?;
    }

    let mut order: Vec<(Hit, usize)> =
        hits.iter().enumerate().filter_map(|(label, hit)| Some(((*hit)?, label))).collect();
    order.sort_by_key(|(hit, _)| (hit.time, hit.place));
    let mut again = Again::new(log);
    let mut same_moment: Vec<(String, u64, Vec<String>)> = Vec::new();
    let mut moment = None;
    for (hit, label) in order {
        if moment != Some(hit.time) {
            flush(&mut same_moment, &mut writer).map_err(unwritten)?;
            moment = Some(hit.time);
        }
        let line = Line::parse(again.read(hit.place)?).ok_or(FeedbackError::Moved)?;
        let cells = line.cells().ok_or(FeedbackError::Moved)?;
        let label = labels.all.get(label).map(|label| &*label.text).unwrap_or_default();
        let record = arranged(&names, &labels.column, label, &cells).ok_or(FeedbackError::Moved)?;
        same_moment.push((line.id.into_owned(), line.row, record));
    }
    flush(&mut same_moment, &mut writer).map_err(unwritten)?;
    writer.flush().map_err(failed)?;
    drop(writer);
    to.commit().map_err(failed)?;
    report.rows = report.appended_to + report.matched;
    report.columns = names;
    Ok(report)
}

/// Rows of one microsecond, in the order of their requests' names: the order of the log's files is an accident.
fn flush(
    rows: &mut Vec<(String, u64, Vec<String>)>,
    writer: &mut csv::Writer<impl Write>,
) -> csv::Result<()> {
    rows.sort_unstable_by(|(id, row, _), (other_id, other_row, _)| (id, row).cmp(&(other_id, other_row)));
    rows.drain(..).try_for_each(|(_, _, record)| writer.write_record(record))
}

/// The cells in the order of the header; `None` if one is not there.
fn arranged(names: &[String], label_column: &str, label: &str, cells: &[Cell<'_>]) -> Option<Vec<String>> {
    let mut at = 0;
    let mut record = Vec::with_capacity(names.len());
    for name in names {
        if name == label_column {
            record.push(label.to_owned());
            continue;
        }
        // Mostly the next one; else wherever it is.
        let position = match cells.get(at) {
            Some((found, _)) if found == name => at,
            _ => cells.iter().position(|(found, _)| found == name)?,
        };
        record.push(cells.get(position)?.1.to_string());
        at = position + 1;
    }
    Some(record)
}

/// Copies an earlier dataset, which has to have the same columns; gives its header and how many rows it has.
fn copy_earlier(
    path: &Path,
    names: &[String],
    writer: &mut csv::Writer<impl Write>,
) -> Result<(Vec<String>, usize), FeedbackError> {
    let file = File::open(path).map_err(|error| FeedbackError::file("open", path, error))?;
    let bad = |error: csv::Error| FeedbackError::csv(path, error.to_string());
    let mut reader = csv::ReaderBuilder::new().buffer_capacity(256 << 10).from_reader(file);
    let header = reader.headers().map_err(bad)?;
    let header: Vec<String> =
        header.iter().map(|name| name.trim_start_matches('\u{feff}').to_owned()).collect();
    let (here, there): (BTreeSet<&String>, BTreeSet<&String>) =
        (names.iter().collect(), header.iter().collect());
    if here != there || header.len() != there.len() {
        let list = |names: Vec<&&String>| {
            let more = if names.len() > 5 { ", ..." } else { "" };
            let shown: Vec<&str> = names.iter().take(5).map(|name| name.as_str()).collect();
            format!("{}{more}", shown.join(", "))
        };
        let missing = list(here.difference(&there).collect());
        let surplus = list(there.difference(&here).collect());
        return Err(FeedbackError::Columns(format!(
            "{} has other columns than the new rows: it lacks [{missing}], and [{surplus}] are only there",
            path.display()
        )));
    }
    let failed = |error: csv::Error| FeedbackError::file("write", path, std::io::Error::other(error));
    writer.write_record(&header).map_err(failed)?;
    let mut record = csv::ByteRecord::new();
    let mut rows = 0;
    while reader.read_byte_record(&mut record).map_err(bad)? {
        writer.write_byte_record(&record).map_err(failed)?;
        rows += 1;
    }
    Ok((header, rows))
}
