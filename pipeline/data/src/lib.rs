//! Checks of datasets: bytes in, values out. No file, no network, no clock, no randomness that is not seeded.
//!
//! ```text
//! policy      what is expected of a dataset, TOML
//! finding     the closed list of codes; a finding names one, with column and rows
//! sniff       what a file is, by its content
//! table       CSV, TSV and JSON lines into columns, typed
//! rules       the table against the policy
//! profile     what can be said of every column in numbers
//! change      against the version before; drift as a population stability index
//! growth      size and rows against the dataset's own history
//! outliers    sigma, box plot, DBSCAN, isolation forest, robust random cut forest
//! split       training and holdout parts, and what is done to outliers
//! mask        private columns made unreadable
//! check       all of that in order; the report
//! html        a report as a page
//! ```
//! Each may use those above it. The same input gives the same bytes: whoever compares digests of reports can rely on it.
//! What needs the outside (a contract's compiler, ONNX Runtime) comes in by [`Outside`].

#![forbid(unsafe_code)]

mod change;
mod check;
mod finding;
mod growth;
mod html;
mod mask;
mod outliers;
mod policy;
mod profile;
mod rng;
mod rules;
mod sniff;
mod split;
mod stats;
mod table;

pub use change::{Change, ColumnDrift, Drift, class_shares};
pub use check::{
    Checked, Contract, Input, Outside, Previous, Report, SplitReport, Training, Verdict, check, read_report,
    too_large,
};
pub use finding::{Code, Finding};
pub use growth::{Growth, Size};
pub use html::html;
pub use mask::{MaskError, MaskSummary, Masked, mask};
pub use outliers::{Forest, ForestAnswer, Matrix, MethodReport, OutlierReport};
pub use policy::{
    Action, Amount, ColumnPolicy, ContractPolicy, DriftPolicy, ExtraColumns, GrowthAction, GrowthPolicy,
    Limits, Mask, MaskPolicy, MethodName, OutlierPolicy, Policy, PolicyError,
};
pub use profile::{ColumnProfile, Histogram, Profile, Shape};
pub use sniff::{Content, Format, Sniffed, sniff};
pub use table::{Column, Kind, Table, read};

/// The version of the report's schema, and of everything that a report depends on but policy and data: a check that would
/// answer otherwise for the same input counts this up.
pub const FORMAT: u32 = 3;
