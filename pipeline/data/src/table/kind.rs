//! The type of a column: what the policy says, else what its cells look like.

use std::collections::HashSet;

use serde::{Deserialize, Serialize};

use super::{Cells, Column};
use crate::finding::Rows;
use crate::policy::ColumnPolicy;

/// A type of column.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// Decimal, with a point; no infinity.
    Number,
    /// Of 64 bits.
    Integer,
    /// `true` or `false`, in any case; also 0 and 1 if the policy says so.
    Boolean,
    /// Text with few different values.
    Category,
    /// A date or time in ISO 8601: `2026-11-21`, `2026-11-21T14:00:00Z`.
    Time,
    Text,
}

impl Kind {
    /// As in policies and reports.
    pub fn id(self) -> &'static str {
        match self {
            Kind::Number => "number",
            Kind::Integer => "integer",
            Kind::Boolean => "boolean",
            Kind::Category => "category",
            Kind::Time => "time",
            Kind::Text => "text",
        }
    }

    /// Does the column keep numbers beside its text?
    fn is_numeric(self) -> bool {
        matches!(self, Kind::Number | Kind::Integer | Kind::Time)
    }
}

/// Different values that a category may have: this many, or this share of its rows up to the second number.
const CATEGORY: usize = 50;
const CATEGORY_SHARE: f64 = 0.05;
const MOST_CATEGORIES: usize = 1000;
/// A column with at least this share of cells of one type is of that type, and the others are misfits.
const PREVAILING: f64 = 0.9;

/// A column of the type that the policy says, or of the type that its cells have; one with bounds is of numbers.
pub(super) fn typed(
    name: String,
    cells: Cells,
    rules: Option<&ColumnPolicy>,
    null_values: &[String],
) -> Column {
    let rows = cells.len();
    let is_null: Vec<bool> = (0..rows)
        .map(|row| {
            let cell = cells.get(row).trim();
            cell.is_empty() || null_values.iter().any(|null| null == cell)
        })
        .collect();
    let kind = rules.and_then(|rules| rules.kind).unwrap_or_else(|| match guessed(&cells, &is_null) {
        kind @ (Kind::Number | Kind::Integer) => kind,
        _ if rules.is_some_and(ColumnPolicy::has_bounds) => Kind::Number,
        kind => kind,
    });
    let mut misfits = Rows::default();
    let mut numbers = Vec::new();
    let mut nulls = 0;
    if kind.is_numeric() {
        numbers.reserve_exact(rows);
    }
    for (row, null) in is_null.iter().enumerate() {
        let value = if *null {
            nulls += 1;
            Some(f64::NAN)
        } else {
            value(kind, cells.get(row).trim())
        };
        if value.is_none() {
            misfits.add(row);
        }
        if kind.is_numeric() {
            numbers.push(value.unwrap_or(f64::NAN));
        }
    }
    Column { name, kind, cells, numbers, is_null, misfits, nulls }
}

/// The number of a cell (0 for texts); `None` if it is not of this type.
fn value(kind: Kind, cell: &str) -> Option<f64> {
    match kind {
        Kind::Number => number(cell),
        Kind::Integer => integer(cell),
        Kind::Boolean => boolean(cell).map(|flag| f64::from(u8::from(flag))),
        Kind::Time => time(cell),
        Kind::Category | Kind::Text => Some(0.0),
    }
}

/// Is the text a value of this type? Any text is one of text.
pub(super) fn fits(kind: Kind, text: &str) -> bool {
    !matches!(kind, Kind::Category | Kind::Text) && value(kind, text).is_some()
}

/// A decimal number. The words for infinity and what is too large for 64 bits are none: they poison every sum.
fn number(cell: &str) -> Option<f64> {
    let digit = |byte: u8| byte.is_ascii_digit();
    if !cell.bytes().any(digit) {
        return None;
    }
    cell.parse().ok().filter(|value: &f64| value.is_finite())
}

fn integer(cell: &str) -> Option<f64> {
    cell.parse::<i64>().ok().map(|value| value as f64)
}

fn boolean(cell: &str) -> Option<bool> {
    match cell {
        "1" => Some(true),
        "0" => Some(false),
        _ if cell.eq_ignore_ascii_case("true") => Some(true),
        _ if cell.eq_ignore_ascii_case("false") => Some(false),
        _ => None,
    }
}

fn guessed(cells: &Cells, is_null: &[bool]) -> Kind {
    let (mut filled, mut integers, mut numbers, mut booleans, mut times) = (0_usize, 0, 0, 0, 0);
    let mut distinct = HashSet::new();
    for row in is_null.iter().enumerate().filter(|(_, null)| !**null).map(|(row, _)| row) {
        let cell = cells.get(row).trim();
        filled += 1;
        if number(cell).is_some() {
            numbers += 1;
            integers += usize::from(integer(cell).is_some());
        } else if boolean(cell).is_some() {
            booleans += 1;
        } else if time(cell).is_some() {
            times += 1;
        }
        if distinct.len() <= MOST_CATEGORIES {
            distinct.insert(cell);
        }
    }
    let prevails = |count: usize| filled > 0 && count as f64 >= filled as f64 * PREVAILING;
    let few = CATEGORY.max(((filled as f64 * CATEGORY_SHARE) as usize).min(MOST_CATEGORIES));
    match () {
        () if prevails(numbers) && integers == numbers => Kind::Integer,
        () if prevails(numbers) => Kind::Number,
        () if prevails(booleans) => Kind::Boolean,
        () if prevails(times) => Kind::Time,
        () if distinct.len() <= few => Kind::Category,
        () => Kind::Text,
    }
}

/// Seconds since 1970 of a date or time in ISO 8601; without an offset it counts as UTC.
fn time(cell: &str) -> Option<f64> {
    let digits = |from: usize, to: usize| {
        let text = cell.get(from..to).filter(|text| text.bytes().all(|byte| byte.is_ascii_digit()))?;
        text.parse::<i64>().ok()
    };
    let is = |at: usize, byte: u8| cell.as_bytes().get(at) == Some(&byte);
    if !(is(4, b'-') && is(7, b'-')) {
        return None;
    }
    let (year, month, day) = (digits(0, 4)?, digits(5, 7)?, digits(8, 10)?);
    let leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
    let length = match month {
        2 => 28 + i64::from(leap),
        4 | 6 | 9 | 11 => 30,
        1..=12 => 31,
        _ => return None,
    };
    if !(1..=length).contains(&day) {
        return None;
    }
    let seconds = days(year, month, day) * 86_400;
    if cell.len() == 10 {
        return Some(seconds as f64);
    }
    if !((is(10, b'T') || is(10, b' ')) && is(13, b':')) {
        return None;
    }
    let (hour, minute) = (digits(11, 13)?, digits(14, 16)?);
    let mut rest = cell.get(16..)?;
    let mut second = 0.0;
    if let Some(after) = rest.strip_prefix(':') {
        let end = after.find(|char: char| !char.is_ascii_digit() && char != '.').unwrap_or(after.len());
        second = after.get(..end)?.parse().ok()?;
        rest = after.get(end..)?;
    }
    let offset = match rest {
        "" | "Z" | "z" => 0,
        _ => {
            let sign = match rest.as_bytes().first()? {
                b'+' => 1,
                b'-' => -1,
                _ => return None,
            };
            let digits: String = rest.get(1..)?.chars().filter(|char| *char != ':').collect();
            let (hours, minutes) = match digits.len() {
                2 => (digits.parse::<i64>().ok()?, 0),
                4 => (digits.get(..2)?.parse().ok()?, digits.get(2..)?.parse::<i64>().ok()?),
                _ => return None,
            };
            sign * (hours * 3600 + minutes * 60)
        }
    };
    let within = (0..24).contains(&hour) && (0..60).contains(&minute) && (0.0..61.0).contains(&second);
    within.then_some((seconds + hour * 3600 + minute * 60 - offset) as f64 + second)
}

/// Days from 1970-01-01 in the proleptic Gregorian calendar (Howard Hinnant, "chrono-Compatible Low-Level Date
/// Algorithms").
fn days(year: i64, month: i64, day: i64) -> i64 {
    let year = if month <= 2 { year - 1 } else { year };
    let era = year.div_euclid(400);
    let of_era = year - era * 400;
    let of_year = (153 * (month + if month > 2 { -3 } else { 9 }) + 2) / 5 + day - 1;
    era * 146_097 + of_era * 365 + of_era / 4 - of_era / 100 + of_year - 719_468
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_read_as_iso_8601() {
        for (text, seconds) in [
            ("1970-01-01", Some(0.0)),
            ("2000-02-29T12:00:00Z", Some(951_825_600.0)),
            ("2026-11-21 14:00:00.5+02:00", Some(1_795_262_400.5)),
            ("2026-11-21T14:00+0200", Some(1_795_262_400.0)),
            ("2026-13-01", None),
            ("2026-02-29", None),
            ("2026-01-01T25:00:00", None),
            ("2026-01-01T10", None),
            ("2026-01-01x", None),
            ("not a date", None),
            ("é026-01-01", None),
        ] {
            assert_eq!(time(text), seconds, "{text}");
        }
    }

    #[test]
    fn types_are_guessed_from_the_cells() {
        let kind = |cells: &[&str]| {
            let mut column = Cells::default();
            cells.iter().for_each(|cell| column.push(cell));
            let typed = typed("a".into(), column, None, &["NA".into()]);
            (typed.kind, typed.nulls, typed.misfits.count)
        };
        assert_eq!(kind(&["1", "2", "", "NA"]), (Kind::Integer, 2, 0));
        assert_eq!(kind(&["1", "2.5", " 3e4 "]), (Kind::Number, 0, 0));
        assert_eq!(kind(&["true", "False"]), (Kind::Boolean, 0, 0));
        assert_eq!(kind(&["2026-01-01", "2026-01-02"]), (Kind::Time, 0, 0));
        assert_eq!(kind(&["a", "b", "1"]), (Kind::Category, 0, 0));
        let mut mixed = vec!["1"; 19];
        mixed.push("oops");
        assert_eq!(kind(&mixed), (Kind::Integer, 0, 1));
        let mut poisoned = vec!["1.5"; 10];
        poisoned.push("inf");
        assert_eq!(kind(&poisoned), (Kind::Number, 0, 1));
        let words: Vec<String> = (0..200).map(|word| format!("word {word}")).collect();
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        assert_eq!(kind(&words), (Kind::Text, 0, 0));
        assert_eq!(kind(&["", ""]), (Kind::Category, 2, 0));
    }
}
