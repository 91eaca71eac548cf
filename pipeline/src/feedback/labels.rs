//! The file of labels, in memory: what it says of which row of which request.

use std::collections::HashMap;
use std::path::Path;

use super::FeedbackError;

/// The column with the row's number in its request, from 0.
const ROW: &str = "row";

/// All labels of a file.
#[derive(Debug)]
pub(super) struct Labels {
    /// What the column of labels is called.
    pub(super) column: String,
    pub(super) all: Vec<Label>,
    requests: HashMap<Box<str>, Request>,
    pub(super) empty: usize,
    pub(super) repeated: usize,
    pub(super) conflicting: usize,
}

/// One label.
#[derive(Debug)]
pub(super) struct Label {
    pub(super) text: Box<str>,
    /// Of the file, from 1.
    pub(super) line: u64,
    /// The first line that says something else of the same row.
    pub(super) conflict: Option<u64>,
}

/// Labels of one request, as positions in [`Labels::all`].
#[derive(Debug, Default)]
struct Request {
    /// Of the only row.
    only: Option<usize>,
    rows: HashMap<u64, usize>,
}

/// What a label is to those before it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Added {
    Fits,
    /// It says which row it is of, and others of the request do not, or the other way round.
    Mixed,
}

/// What the file says of a logged row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Found {
    Nothing,
    Label(usize),
    /// The request has several rows, and the label does not say which.
    NoRow(usize),
}

impl Labels {
    /// Reads the file. Empty labels are none yet.
    ///
    /// # Errors
    /// [`FeedbackError::Csv`] with the line.
    pub(super) fn read(path: &Path, on: &str, label: Option<&str>) -> Result<Self, FeedbackError> {
        let file = std::fs::File::open(path).map_err(|error| FeedbackError::file("open", path, error))?;
        let mut reader = csv::ReaderBuilder::new().buffer_capacity(256 << 10).from_reader(file);
        let bad = |text: String| FeedbackError::csv(path, text);
        let header = reader.headers().map_err(|error| bad(error.to_string()))?.clone();
        let names: Vec<&str> = header.iter().map(|name| name.trim_start_matches('\u{feff}').trim()).collect();
        let position = |wanted: &str| match names.iter().filter(|name| **name == wanted).count() {
            0 => Err(bad(format!("there is no column {wanted:?}; there are {}", names.join(", ")))),
            1 => Ok(names.iter().position(|name| *name == wanted).unwrap_or(0)),
            _ => Err(bad(format!("the column {wanted:?} is given twice"))),
        };
        let id = position(on)?;
        let row = if names.contains(&ROW) && on != ROW { Some(position(ROW)?) } else { None };
        let label = match label {
            Some(name) => position(name)?,
            None => {
                let rest: Vec<usize> =
                    (0..names.len()).filter(|index| *index != id && Some(*index) != row).collect();
                match rest.as_slice() {
                    [only] => *only,
                    _ => {
                        return Err(bad(format!(
                            "say which column is the label (--label); there are {}",
                            names.join(", ")
                        )));
                    }
                }
            }
        };
        if label == id || Some(label) == row {
            return Err(bad(format!("the column {:?} cannot be the label too", names[label])));
        }
        let column = names[label].to_owned();
        let mut labels =
            Self { column, all: Vec::new(), requests: HashMap::new(), empty: 0, repeated: 0, conflicting: 0 };
        let mut record = csv::StringRecord::new();
        while reader.read_record(&mut record).map_err(|error| bad(error.to_string()))? {
            let line = record.position().map_or(0, csv::Position::line);
            let cell = |index: usize| record.get(index).unwrap_or_default();
            let (id, text) = (cell(id), cell(label));
            if id.is_empty() {
                return Err(bad(format!("line {line}: the column {on:?} is empty")));
            }
            let number = match row.map(cell).map(str::trim) {
                None | Some("") => None,
                Some(text) => Some(text.parse::<u64>().map_err(|_| {
                    bad(format!(
                        "line {line}: {:?} is no row's number",
                        text.chars().take(50).collect::<String>()
                    ))
                })?),
            };
            if text.trim().is_empty() {
                labels.empty += 1;
                continue;
            }
            match labels.add(id, number, text, line) {
                Added::Mixed => {
                    let id: String = id.chars().take(50).collect();
                    return Err(bad(format!(
                        "line {line}: labels of request {id:?} say which row they are of, and others do not"
                    )));
                }
                Added::Fits => {}
            }
        }
        Ok(labels)
    }

    /// Adds a label, or replaces one of the same row.
    fn add(&mut self, id: &str, row: Option<u64>, text: &str, line: u64) -> Added {
        let mut label = Label { text: text.into(), line, conflict: None };
        // Looked up by reference first: a request of many rows has its name once.
        if !self.requests.contains_key(id) {
            self.requests.insert(id.into(), Request::default());
        }
        let Some(request) = self.requests.get_mut(id) else { return Added::Fits };
        let next = self.all.len();
        let position = match row {
            None if !request.rows.is_empty() => return Added::Mixed,
            Some(_) if request.only.is_some() => return Added::Mixed,
            None => *request.only.get_or_insert(next),
            Some(row) => *request.rows.entry(row).or_insert(next),
        };
        let Some(known) = self.all.get_mut(position) else {
            self.all.push(label);
            return Added::Fits;
        };
        let differs = known.text != label.text;
        label.conflict = known.conflict.or(differs.then_some(line));
        *known = label;
        *(if differs { &mut self.conflicting } else { &mut self.repeated }) += 1;
        Added::Fits
    }

    /// The label of a logged row; `rows` are those of its request, `None` if that is not known.
    pub(super) fn of(&self, id: &str, row: u64, rows: Option<u64>) -> Found {
        let Some(request) = self.requests.get(id) else { return Found::Nothing };
        match (request.rows.get(&row), request.only) {
            (Some(label), _) => Found::Label(*label),
            (None, Some(only)) if row == 0 && rows == Some(1) => Found::Label(only),
            (None, Some(only)) => Found::NoRow(only),
            (None, None) => Found::Nothing,
        }
    }
}
