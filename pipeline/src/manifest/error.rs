//! What is wrong with a set of manifests: many faults at once, each with its place and what to do.

use std::cell::RefCell;
use std::fmt;
use std::path::{Path, PathBuf};

/// Faults that are reported at most; the rest is counted.
const MAX_FAULTS: usize = 100;

/// One thing that is refused.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault {
    pub file: PathBuf,
    /// Counted from 1; `None` if the file as a whole is meant.
    pub document: Option<usize>,
    /// Counted from 1; the nearest that is known.
    pub line: Option<usize>,
    /// `Kind/name` of the object, as far as it could be read.
    pub object: String,
    /// Path of the field, `spec.template.spec.containers[0].image`; empty for the object as a whole.
    pub field: String,
    /// What is wrong, and what to do.
    pub text: String,
}

impl fmt::Display for Fault {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}", self.file.display())?;
        if let Some(line) = self.line {
            write!(formatter, ":{line}")?;
        }
        if let Some(document) = self.document {
            write!(formatter, ": document {document}")?;
        }
        for part in [&self.object, &self.field] {
            if !part.is_empty() {
                write!(formatter, ": {}", printable(part))?;
            }
        }
        write!(formatter, ": {}", printable(&self.text))
    }
}

/// A text of a manifest for a terminal, which would obey what is in it.
pub(crate) fn printable(text: &str) -> String {
    text.chars().filter(|symbol| !symbol.is_control()).collect()
}

/// Why a set of manifests is no pipeline. Never empty.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub struct ManifestErrors {
    pub faults: Vec<Fault>,
    /// Faults beyond those that are listed.
    pub more: usize,
}

impl fmt::Display for ManifestErrors {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, fault) in self.faults.iter().enumerate() {
            if index > 0 {
                writeln!(formatter)?;
            }
            write!(formatter, "{fault}")?;
        }
        if self.more > 0 {
            write!(formatter, "\nand {} more", self.more)?;
        }
        Ok(())
    }
}

/// Where faults and remarks are collected while a set is read.
#[derive(Debug, Default)]
pub(super) struct Report {
    faults: RefCell<Vec<Fault>>,
    more: RefCell<usize>,
    notes: RefCell<Vec<String>>,
}

impl Report {
    pub(super) fn fault(&self, fault: Fault) {
        let mut faults = self.faults.borrow_mut();
        if faults.contains(&fault) {
            return;
        }
        if faults.len() < MAX_FAULTS {
            faults.push(fault);
        } else {
            *self.more.borrow_mut() += 1;
        }
    }

    /// A fault of a file as a whole.
    pub(super) fn file(&self, file: &Path, text: impl Into<String>) {
        self.fault(Fault {
            file: file.to_owned(),
            document: None,
            line: None,
            object: String::new(),
            field: String::new(),
            text: text.into(),
        });
    }

    pub(super) fn has_faults(&self) -> bool {
        !self.faults.borrow().is_empty()
    }

    /// Something that is read but that somebody should know.
    pub(super) fn note(&self, text: String) {
        let mut notes = self.notes.borrow_mut();
        if !notes.contains(&text) {
            notes.push(text);
        }
    }

    /// The remarks, or the faults if there are any.
    pub(super) fn finish(self) -> Result<Vec<String>, ManifestErrors> {
        let faults = self.faults.into_inner();
        if faults.is_empty() {
            Ok(self.notes.into_inner())
        } else {
            Err(ManifestErrors { faults, more: self.more.into_inner() })
        }
    }
}
