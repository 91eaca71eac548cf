//! Private columns made unreadable, before anybody else sees the rows.
//!
//! A hash is `sha256(salt, 0x00, column, 0x00, value)`, 32 hex digits of it: equal values stay equal, so that rows can
//! still be joined and counted, and the column's name keeps two columns from being joined with each other. Without the
//! salt a hash of a name or a number is found by trying all of them, so a salt must be given, and kept.

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use crate::finding::Finding;
use crate::policy::{Mask, Policy, PolicyError};
use crate::sniff::sniff;
use crate::table::{Table, read};

/// What every value becomes that is redacted.
const REDACTED: &str = "***";
/// Bytes that a salt must have at least.
const SHORTEST_SALT: usize = 16;

/// Why nothing was masked.
#[derive(Debug, thiserror::Error)]
pub enum MaskError {
    #[error(transparent)]
    Policy(#[from] PolicyError),
    #[error("the policy has no [mask.columns]; without any there is nothing to mask")]
    NothingToMask,
    #[error(
        "the policy masks {0}, which is no column of the file; nothing is masked, since a misspelt name would let it through"
    )]
    NoColumn(String),
    #[error("the policy hashes {0}: a salt of at least {SHORTEST_SALT} bytes is needed (BATON_MASK_SALT)")]
    NoSalt(String),
    #[error("the file cannot be read: {}", .0.first().map(|finding| finding.text.as_str()).unwrap_or_default())]
    Unreadable(Vec<Finding>),
    #[error("every column of the file would be removed")]
    NothingLeft,
    #[error("column {column} is to be put in buckets, and row {row} is no number; nothing is masked")]
    NoNumber { column: String, row: u64 },
}

/// Masked rows.
#[derive(Debug)]
pub struct Masked {
    /// CSV with commas and a header.
    pub csv: Vec<u8>,
    pub summary: MaskSummary,
}

/// What was done.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MaskSummary {
    pub rows: u64,
    /// Column, and how it was masked.
    pub columns: Vec<(String, String)>,
}

/// Masks the columns that the policy names in `[mask.columns]`.
///
/// # Errors
/// See [`MaskError`]. Never gives rows of which a part only is masked.
pub fn mask(file: &str, bytes: &[u8], policy: &Policy, salt: &[u8]) -> Result<Masked, MaskError> {
    let masks = policy.mask.masks()?;
    if masks.is_empty() {
        return Err(MaskError::NothingToMask);
    }
    let sniffed =
        sniff(file, bytes, &policy.limits).map_err(|finding| MaskError::Unreadable(vec![finding]))?;
    let (table, _) = read(&sniffed, policy).map_err(MaskError::Unreadable)?;
    if let Some(name) = masks.keys().find(|name| table.column(name).is_none()) {
        return Err(MaskError::NoColumn(name.clone()));
    }
    let hashed = masks.iter().find(|(_, mask)| **mask == Mask::Hash);
    if let Some((name, _)) = hashed.filter(|_| salt.len() < SHORTEST_SALT) {
        return Err(MaskError::NoSalt(name.clone()));
    }
    let kept: Vec<_> =
        table.columns.iter().filter(|column| masks.get(&column.name) != Some(&Mask::Remove)).collect();
    if kept.is_empty() {
        return Err(MaskError::NothingLeft);
    }
    let mut writer = ::csv::Writer::from_writer(Vec::new());
    // Memory takes everything, and the records are of one length: there is nothing that can fail.
    let _ = writer.write_record(kept.iter().map(|column| column.name.as_str()));
    for row in 0..table.rows() {
        for column in &kept {
            let cell = column.cell(row);
            let null = column.is_null(row);
            match masks.get(&column.name) {
                None | Some(Mask::Remove) => drop(writer.write_field(cell)),
                // That there is no value is no secret, and a checker must still see it.
                Some(_) if null => drop(writer.write_field("")),
                Some(Mask::Redact) => drop(writer.write_field(REDACTED)),
                Some(Mask::Hash) => drop(writer.write_field(hash(salt, &column.name, cell.trim()))),
                Some(Mask::Bucket(width)) => {
                    let number: Option<f64> =
                        cell.trim().parse().ok().filter(|value: &f64| value.is_finite());
                    let Some(number) = number else {
                        return Err(MaskError::NoNumber { column: column.name.clone(), row: row as u64 + 1 });
                    };
                    drop(writer.write_field(format!("{}", (number / width).floor() * width)));
                }
            }
        }
        let _ = writer.write_record(None::<&[u8]>);
    }
    let summary = MaskSummary { rows: table.rows() as u64, columns: told(&table, policy) };
    Ok(Masked { csv: writer.into_inner().unwrap_or_default(), summary })
}

fn hash(salt: &[u8], column: &str, value: &str) -> String {
    let mut hash = Sha256::new();
    for part in [salt, b"\0", column.as_bytes(), b"\0", value.as_bytes()] {
        hash.update(part);
    }
    hash.finalize().iter().take(16).map(|byte| format!("{byte:02x}")).collect()
}

fn told(table: &Table, policy: &Policy) -> Vec<(String, String)> {
    let mask = |name: &str| policy.mask.columns.get(name).cloned();
    table.columns.iter().filter_map(|column| Some((column.name.clone(), mask(&column.name)?))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const SALT: &[u8] = b"sixteen bytes or more";
    const TABLE: &str = "name,mail,age,city\nAnn,a@x,34,Bonn\nBob,b@x,-7.5,Bonn\nAnn,,40,\n";

    fn masked(columns: &str, salt: &[u8]) -> Result<String, MaskError> {
        let policy = Policy::parse(&format!("[mask.columns]\n{columns}")).expect("a policy");
        mask("a.csv", TABLE.as_bytes(), &policy, salt)
            .map(|masked| String::from_utf8(masked.csv).expect("UTF-8"))
    }

    #[test]
    fn every_way_of_masking_does_what_it_says() {
        let text = masked("name = \"hash\"\nmail = \"remove\"\nage = \"bucket=10\"\ncity = \"redact\"", SALT)
            .expect("masked");
        let lines: Vec<Vec<&str>> = text.lines().map(|line| line.split(',').collect()).collect();
        assert_eq!(lines[0], ["name", "age", "city"]);
        assert_eq!((lines[1][1], lines[2][1], lines[3][1]), ("30", "-10", "40"));
        assert_eq!((lines[1][2], lines[3][2]), ("***", ""));
        assert_eq!(lines[1][0], lines[3][0]);
        assert_ne!(lines[1][0], lines[2][0]);
        assert_eq!(lines[1][0].len(), 32);
        for secret in ["Ann", "Bob", "@x", "34", "Bonn"] {
            assert!(!text.contains(secret), "{secret} is in {text}");
        }
        let other = masked("name = \"hash\"", b"another salt, as long").expect("masked");
        assert!(!other.contains(lines[1][0]));
    }

    #[test]
    fn nothing_passes_half_masked() {
        for (columns, salt, part) in [
            ("nmae = \"hash\"", SALT, "nmae"),
            ("name = \"hash\"", &b"short"[..], "salt"),
            ("mail = \"bucket=10\"", SALT, "row 1"),
            ("", SALT, "nothing to mask"),
            ("name=\"remove\"\nmail=\"remove\"\nage=\"remove\"\ncity=\"remove\"", SALT, "every column"),
        ] {
            let error = masked(columns, salt).expect_err(columns).to_string();
            assert!(error.contains(part), "{error}");
        }
    }
}
