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
use crate::table::{Column, Table, read};

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
    /// What a finding quotes may be private: its code must do.
    #[error("the file cannot be read: {}", unreadable(.0))]
    Unreadable(Vec<Finding>),
    #[error("every column of the file would be removed")]
    NothingLeft,
    #[error(
        "column {column} is to be put in buckets, and row {row} has no number that fits one; nothing is masked"
    )]
    NoNumber { column: String, row: u64 },
    #[error(
        "the buckets of {column} leave {same} of {all} numbers as they are; nothing is masked: take wider ones, or another mask"
    )]
    Unmasked { column: String, same: u64, all: u64 },
}

fn unreadable(findings: &[Finding]) -> String {
    let told = |finding: &Finding| {
        let row = finding.rows.first().map(|row| format!(", row {row}")).unwrap_or_default();
        format!("{}, {}{row}", finding.code.id(), finding.code.meaning())
    };
    findings.first().map(told).unwrap_or_default()
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
    for (name, mask) in &masks {
        if let (Mask::Bucket(width), Some(column)) = (mask, table.column(name)) {
            check_buckets(column, table.rows(), *width)?;
        }
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
                    let Some(end) = bucket(cell, *width) else {
                        return Err(MaskError::NoNumber { column: column.name.clone(), row: row as u64 + 1 });
                    };
                    drop(writer.write_field(end));
                }
            }
        }
        let _ = writer.write_record(None::<&[u8]>);
    }
    let summary = MaskSummary { rows: table.rows() as u64, columns: told(&table, policy) };
    Ok(Masked { csv: writer.into_inner().unwrap_or_default(), summary })
}

/// The lower end of a number's bucket, with as many decimals as the width has. Whole numbers in buckets of whole width are
/// computed as such; `None` for what is no number, and for others so large that a float may be of the next bucket.
fn bucket(cell: &str, width: f64) -> Option<String> {
    const EXACT: f64 = (1_u64 << 53) as f64;
    let cell = cell.trim();
    if let (Some(number), Some(width)) = (whole(cell), whole_width(width)) {
        return number.div_euclid(width).checked_mul(width).map(|end| end.to_string());
    }
    let number: f64 = cell.parse().ok()?;
    let places = number / width;
    if places.is_nan() || places.abs() >= EXACT || number.abs() >= EXACT {
        return None;
    }
    // 0.3 is in the bucket of 0.3, though 0.3 / 0.1 is a little less than 3.
    let nearest = places.round();
    let is_end = (places - nearest).abs() <= 4.0 * f64::EPSILON * nearest.abs();
    let place = if is_end { nearest } else { places.floor() };
    let decimals = (0..=17).find(|decimals| format!("{width:.decimals$}").parse() == Ok(width));
    // No sign for the bucket of 0.
    Some(format!("{:.*}", decimals.unwrap_or(17), place * width + 0.0))
}

/// The whole number that a cell is, with a sign or without.
fn whole(cell: &str) -> Option<i128> {
    cell.parse().ok()
}

/// The width as a whole number, if it is one.
fn whole_width(width: f64) -> Option<i128> {
    const MOST: f64 = 1e38;
    (width.fract() == 0.0 && width < MOST).then_some(width as i128)
}

/// Refuses buckets that hide nothing: most numbers but 0 are the lower ends of theirs.
fn check_buckets(column: &Column, rows: usize, width: f64) -> Result<(), MaskError> {
    let (mut same, mut all) = (0_u64, 0_u64);
    for row in (0..rows).filter(|row| !column.is_null(*row)) {
        let cell = column.cell(row).trim();
        if cell.parse().is_ok_and(|number: f64| number != 0.0)
            && let Some(end) = bucket(cell, width)
        {
            all += 1;
            same += u64::from(is_same_number(cell, &end));
        }
    }
    match same * 2 > all {
        true => Err(MaskError::Unmasked { column: column.name.clone(), same, all }),
        false => Ok(()),
    }
}

fn is_same_number(one: &str, other: &str) -> bool {
    match (whole(one), whole(other)) {
        (Some(one), Some(other)) => one == other,
        _ => one.parse::<f64>().is_ok_and(|one| other.parse() == Ok(one)),
    }
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
    fn buckets_end_where_their_width_says() {
        for (cell, width, end) in [
            ("0.3", 0.1, Some("0.3")),
            ("0.7", 0.1, Some("0.7")),
            ("0.75", 0.1, Some("0.7")),
            ("5", 1e-5, Some("5.00000")),
            ("-0.0", 10.0, Some("0")),
            ("-0.5", 0.25, Some("-0.50")),
            ("1e308", 0.1, None),
            ("12345678901234567890", 1.0, Some("12345678901234567890")),
            ("9007199254740993", 10.0, Some("9007199254740990")),
            ("9007199254740999", 1000.0, Some("9007199254740000")),
            ("-9007199254740993", 2.0, Some("-9007199254740994")),
            (" +1760000000000000001 ", 1e9, Some("1760000000000000000")),
            ("-170141183460469231731687303715884105728", 10.0, None),
            // Beyond what a float tells from its neighbours.
            ("9007199254740993", 2.5, None),
            ("9007199254740999.5", 10.0, None),
            ("1e300", 1e299, None),
            ("inf", 10.0, None),
        ] {
            assert_eq!(bucket(cell, width).as_deref(), end, "{cell} {width}");
        }
        let check = |numbers: &str, width: f64| {
            let policy = Policy::parse(&format!("mask.columns.a = \"bucket={width}\"")).expect("a policy");
            mask("a.csv", format!("a\n{numbers}").as_bytes(), &policy, SALT).map(|_| ())
        };
        assert!(matches!(
            check("123456789\n3\n0\n", 0.001),
            Err(MaskError::Unmasked { same: 2, all: 2, .. })
        ));
        assert!(check("0\n0\n0\n7\n", 5.0).is_ok());
        assert!(
            check("1152921504606846977\n1152921504606846979\n", 10.0).is_ok(),
            "one float, not one number"
        );
        assert!(matches!(check("1152921504606846977\n", 1.0), Err(MaskError::Unmasked { .. })));
    }

    #[test]
    fn errors_hold_no_cells() {
        let policy = Policy::parse("mask.columns.a = \"remove\"").expect("a policy");
        for (name, text) in [
            ("a.jsonl", "{\"a\":1}\n\"Ann Secret\"\n"),
            ("a.jsonl", "{\"a\":1}\n5551234\n"),
            ("a.jsonl", "{\"a\":1,\"Ann Secret\":2,\"Ann Secret\":3}\n"),
            ("a.csv", "Ann Secret,Ann Secret\n1,2\n"),
        ] {
            let error = mask(name, text.as_bytes(), &policy, SALT).expect_err(text).to_string();
            assert!(!error.contains("Secret") && !error.contains("555"), "{error}");
        }
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
