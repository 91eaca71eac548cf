//! Whole sets: what is read from a good one, and what is said of a bad one.

mod advised;
mod good;
mod refused;
mod unknown;

use std::path::{Path, PathBuf};

use super::set::MissingSecret;
use super::{Inspection, ManifestErrors};

/// A small set with one object of each kind.
const SMALL: &str = include_str!("tests/small.yaml");

/// Reads one text as a set in a folder of its own, with `TOKEN` in the environment.
fn read_text(text: &str) -> Result<Inspection, ManifestErrors> {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("set.yaml"), text).unwrap();
    read_paths(&[folder.path().to_owned()])
}

fn read_paths(paths: &[PathBuf]) -> Result<Inspection, ManifestErrors> {
    let environment = |name: &str| (name == "TOKEN" || name == "BATON_TOKEN").then(|| "secret-1".to_owned());
    super::inspected(paths, &[], &environment, MissingSecret::Refused)
}

/// A path in the repository.
fn repository(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(path)
}
