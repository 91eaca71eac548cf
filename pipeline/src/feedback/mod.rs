//! From the runner's request log and labels that came later to rows of the next dataset (`docs/feedback.md`).
//!
//! Two passes over the log. The first finds the row of each label and remembers where it stands; the second writes those
//! rows, oldest first. So memory follows the number of labels, never the size of the log or the width of a row, and the
//! order does not depend on how the log is cut into files.

mod join;
mod labels;
mod log;
mod output;
#[cfg(test)]
mod tests;

use std::path::PathBuf;

pub use join::{Report, join};

/// What is to be joined.
#[derive(Debug, Clone)]
pub struct Join {
    /// The model's folder in the request log.
    pub log: PathBuf,
    /// CSV with a column of request ids, perhaps one of rows, and one of labels.
    pub labels: PathBuf,
    /// The column with the request's id.
    pub on: String,
    /// The column with the label; may be left out if there is only one that it can be.
    pub label: Option<String>,
    pub window: Window,
    pub conflicts: Conflicts,
    pub prefer: Prefer,
    /// An earlier dataset whose rows come first.
    pub append: Option<PathBuf>,
    /// A file that is made or replaced; anything else that is there (a device, a pipe) is written. `-` is standard output.
    pub out: PathBuf,
}

/// Which logged rows count.
#[derive(Debug, Clone, Default)]
pub struct Window {
    pub since: Option<jiff::Timestamp>,
    /// Not itself included.
    pub until: Option<jiff::Timestamp>,
    /// Only those that this bundle answered.
    pub digest: Option<String>,
}

/// What happens to a row with two different labels.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Conflicts {
    /// Nothing is written.
    Refuse,
    /// The one that stands last in the file counts.
    Last,
}

/// What happens to a label whose request id was used for different inputs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Prefer {
    /// Nothing is written: it cannot be known which of them the label is of.
    Refuse,
    /// The label is of the inputs that came first.
    First,
    /// The label is of the inputs that came last.
    Last,
}

/// Why there is no dataset. Nothing was written.
#[derive(Debug, thiserror::Error)]
pub enum FeedbackError {
    #[error("cannot {verb} {}: {source}", path.display())]
    File {
        verb: &'static str,
        path: PathBuf,
        #[source]
        source: std::io::Error,
    },
    #[error("{}: {text}", path.display())]
    Csv { path: PathBuf, text: String },
    #[error("{} holds no request log; give the folder of one model, LOG/MODEL", .0.display())]
    NoLog(PathBuf),
    #[error("a file of the request log was removed or changed while it was read; try again")]
    Moved,
    #[error(
        "{count} logged rows have labels that contradict each other, the first in line {line}; --conflicts last takes the last of each"
    )]
    Conflicts { count: usize, line: u64 },
    #[error(
        "{count} labels are of a request id that was used for different inputs, the first is in line {line}; --prefer first or last takes one of them"
    )]
    Ambiguous { count: usize, line: u64 },
    #[error(
        "{count} labels name a request of several rows, or a file, and not which row, the first is in line {line}; give a column \"row\", from 0"
    )]
    NoRow { count: usize, line: u64 },
    #[error("{0}")]
    Columns(String),
    #[error("no logged row has a label, so there is nothing to write ({0})")]
    Nothing(Box<Report>),
}

impl FeedbackError {
    fn file(verb: &'static str, path: &std::path::Path, source: std::io::Error) -> Self {
        Self::File { verb, path: path.to_owned(), source }
    }

    fn csv(path: &std::path::Path, text: impl Into<String>) -> Self {
        Self::Csv { path: path.to_owned(), text: text.into() }
    }
}
