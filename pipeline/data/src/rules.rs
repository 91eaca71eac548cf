//! A table against its policy: columns, types, values, label, key.

use std::collections::HashMap;

use crate::finding::{Code, Finding, Rows, shown};
use crate::policy::{Amount, ColumnPolicy, ExtraColumns, Policy, compiled};
use crate::profile::Profile;
use crate::table::{Column, Kind, Table};

/// What breaks the policy, and what is merely odd.
#[derive(Debug, Default)]
pub(crate) struct Found {
    pub(crate) reasons: Vec<Finding>,
    pub(crate) warnings: Vec<Finding>,
}

pub(crate) fn check(table: &Table, profile: &Profile, policy: &Policy) -> Found {
    let mut found = Found::default();
    columns_there(table, policy, &mut found);
    for (column, profile) in table.columns.iter().zip(&profile.columns) {
        types(column, policy, &mut found);
        if let Some(rules) = policy.column(&column.name) {
            values(column, table.rows(), rules, policy, &mut found);
        }
        emptiness(column, profile.distinct, table.rows(), policy, &mut found);
    }
    label(table, policy, &mut found);
    key(table, policy, &mut found);
    found
}

fn columns_there(table: &Table, policy: &Policy, found: &mut Found) {
    for (name, rules) in &policy.columns {
        if rules.required.unwrap_or(true) && table.column(name).is_none() {
            let name = shown(name);
            let text = format!("column {name} is missing; there are {}", listed(&table.names()));
            found.reasons.push(Finding::new(Code::ColumnMissing, text).in_column(&name));
        }
    }
    for name in policy.features.iter().flatten().filter(|name| table.column(name).is_none()) {
        let name = shown(name);
        let text =
            format!("column {name}, one of features, is missing; there are {}", listed(&table.names()));
        found.reasons.push(Finding::new(Code::ColumnMissing, text).in_column(&name));
    }
    if policy.columns.is_empty() || policy.extra_columns == ExtraColumns::Ignore {
        return;
    }
    let is_known = |name: &str| policy.column(name).is_some() || policy.is_label(name) || policy.is_key(name);
    for column in table.columns.iter().filter(|column| !is_known(&column.name)) {
        let text = format!("the policy names no column {}", shown(&column.name));
        let finding = Finding::new(Code::ColumnExtra, text).in_column(&column.name);
        match policy.extra_columns {
            ExtraColumns::Refuse => found.reasons.push(finding),
            ExtraColumns::Warn | ExtraColumns::Ignore => found.warnings.push(finding),
        }
    }
}

fn listed(names: &[&str]) -> String {
    let told: Vec<String> = names.iter().take(12).map(|name| shown(name)).collect();
    let more = if names.len() > told.len() { ", ..." } else { "" };
    format!("{}{more}", told.join(", "))
}

fn types(column: &Column, policy: &Policy, found: &mut Found) {
    let rows = &column.misfits;
    let Some(first) = first(rows) else { return };
    let declared = policy.column(&column.name).is_some_and(ColumnPolicy::is_typed);
    let cell = first_cell(column, first, policy);
    let name = shown(&column.name);
    let kind = column.kind.id();
    let (code, text) = if declared {
        (Code::BadType, format!("column {name}: {} not of type {kind}{cell}", rows.text()))
    } else {
        let text = format!(
            "column {name}: nearly all cells are of type {kind}, not so {}{cell}; correct them, or \
             give the column a type in the policy",
            rows.text()
        );
        (Code::MixedTypes, text)
    };
    let finding = Finding::new(code, text).in_column(&column.name).at(rows);
    if declared || policy.refuse_mixed {
        found.reasons.push(finding);
    } else {
        found.warnings.push(finding);
    }
}

/// For a text: the cell of the first row concerned; nothing of a private column.
fn first_cell(column: &Column, row: usize, policy: &Policy) -> String {
    match policy.is_masked(&column.name) {
        true => String::new(),
        false => format!(" (the first is {:?})", shown(column.cell(row))),
    }
}

/// The position of the first of these rows.
fn first(rows: &Rows) -> Option<usize> {
    rows.first().first().map(|row| *row as usize - 1)
}

/// The rules of a column that look at single cells.
fn values(column: &Column, rows: usize, rules: &ColumnPolicy, policy: &Policy, found: &mut Found) {
    let mut broken = |code: Code, rows: &Rows, what: &str| {
        if let Some(at) = first(rows) {
            let (name, cell) = (shown(&column.name), first_cell(column, at, policy));
            let text = format!("column {name}: {} {what}{cell}", rows.text());
            found.reasons.push(Finding::new(code, text).in_column(&column.name).at(rows));
        }
    };
    let selected = |is_broken: &dyn Fn(usize) -> bool| {
        let mut broken = Rows::default();
        (0..rows).filter(|row| !column.is_null(*row) && is_broken(*row)).for_each(|row| broken.add(row));
        broken
    };
    let amount = |row: usize| {
        Amount::of_cell(column.cell(row), column.numbers().get(row).copied().unwrap_or(f64::NAN))
    };
    if let Some(min) = rules.min {
        broken(Code::BelowMin, &selected(&|row| amount(row) < min), &format!("below {min}"));
    }
    if let Some(max) = rules.max {
        broken(Code::AboveMax, &selected(&|row| amount(row) > max), &format!("above {max}"));
    }
    if let Some(values) = &rules.values {
        let known: std::collections::HashSet<&str> = values.iter().map(String::as_str).collect();
        let unknown = selected(&|row| !known.contains(column.cell(row).trim()));
        let names: Vec<&str> = values.iter().map(String::as_str).collect();
        broken(Code::ValueUnknown, &unknown, &format!("not one of {}", listed(&names)));
    }
    if let Some(pattern) = rules.pattern.as_deref().and_then(|pattern| compiled(pattern).ok()) {
        let unfit = selected(&|row| !pattern.is_match(column.cell(row).trim()));
        broken(Code::PatternMismatch, &unfit, &format!("do not fit {}", shown(pattern.as_str())));
    }
    if rules.unique {
        broken(Code::NotUnique, &repeated(column, rows), "with a value that occurs before");
    }
}

/// Rows whose value occurs in a row before.
fn repeated(column: &Column, rows: usize) -> Rows {
    let mut seen: HashMap<&str, ()> = HashMap::with_capacity(rows);
    let mut repeated = Rows::default();
    for row in (0..rows).filter(|row| !column.is_null(*row)) {
        if seen.insert(column.cell(row).trim(), ()).is_some() {
            repeated.add(row);
        }
    }
    repeated
}

/// Cells without a value, and columns without a difference. `distinct`: how many different values of its type the column has.
fn emptiness(column: &Column, distinct: u64, rows: usize, policy: &Policy, found: &mut Found) {
    let name = shown(&column.name);
    let share = column.nulls as f64 / rows.max(1) as f64;
    let most = policy.column(&column.name).and_then(|rules| rules.nulls);
    if let Some(most) = most.filter(|most| share > *most) {
        let text = format!(
            "column {name}: {} of {rows} cells have no value, a share of {share:.4}; at most {most} are allowed",
            column.nulls
        );
        found.reasons.push(Finding::new(Code::TooManyNulls, text).in_column(&column.name));
    }
    if column.nulls == rows as u64 {
        let text = format!("column {name} has no value at all");
        found.warnings.push(Finding::new(Code::NullColumn, text).in_column(&column.name));
    } else if rows > 1 && !policy.is_label(&column.name) && distinct == 1 && column.misfits.is_empty() {
        let text =
            format!("column {name} has one value in all rows that have any; nothing can be learnt from it");
        found.warnings.push(Finding::new(Code::Constant, text).in_column(&column.name));
    }
}

fn label(table: &Table, policy: &Policy, found: &mut Found) {
    let Some(label) = policy.label.as_deref() else { return };
    let Some(column) = table.column(label) else {
        let text = format!("the label {} is missing; there are {}", shown(label), listed(&table.names()));
        found.reasons.push(Finding::new(Code::LabelMissing, text).in_column(label));
        return;
    };
    let mut nulls = Rows::default();
    (0..table.rows()).filter(|row| column.is_null(*row)).for_each(|row| nulls.add(row));
    if !nulls.is_empty() {
        let text = format!("{} without a label", nulls.text());
        found.reasons.push(Finding::new(Code::LabelNull, text).in_column(label).at(&nulls));
    }
    let filled = (0..table.rows()).filter(|row| !column.is_null(*row));
    let mut different = filled.map(|row| column.cell(row).trim());
    if let Some(one) = different.next()
        && table.rows() > 1
        && different.all(|other| other == one)
    {
        let one = if policy.is_masked(label) { "the same".into() } else { format!("{:?}", shown(one)) };
        let text = format!("every label is {one}; nothing can be learnt");
        found.reasons.push(Finding::new(Code::LabelConstant, text).in_column(label));
    }
}

fn key(table: &Table, policy: &Policy, found: &mut Found) {
    let Some(key) = policy.key.as_deref() else { return };
    let Some(column) = table.column(key) else {
        let text = format!("the key {} is missing; there are {}", shown(key), listed(&table.names()));
        found.reasons.push(Finding::new(Code::KeyMissing, text).in_column(key));
        return;
    };
    let mut nulls = Rows::default();
    (0..table.rows()).filter(|row| column.is_null(*row)).for_each(|row| nulls.add(row));
    if !nulls.is_empty() {
        let text = format!("{} without a key", nulls.text());
        found.reasons.push(Finding::new(Code::KeyNull, text).in_column(key).at(&nulls));
    }
    let repeated = repeated(column, table.rows());
    if !repeated.is_empty() {
        let text = format!("{} with a key that occurs before", repeated.text());
        found.reasons.push(Finding::new(Code::KeyDuplicate, text).in_column(key).at(&repeated));
    }
}

/// Copies of rows: told in any case, refused from the policy's share on.
pub(crate) fn duplicates(count: u64, rows: u64, policy: &Policy, found: &mut Found) {
    if count == 0 {
        return;
    }
    let share = count as f64 / rows.max(1) as f64;
    let text = format!("{count} of {rows} rows are copies of others, a share of {share:.4}");
    match policy.max_duplicates.filter(|most| share > *most) {
        Some(most) => {
            let text = format!("{text}; at most {most} are allowed");
            found.reasons.push(Finding::new(Code::DuplicateRows, text));
        }
        None => found.warnings.push(Finding::new(Code::DuplicateRows, text)),
    }
}

/// Is the column one whose numbers say something about a row? Not its label, name or time, and none that is private.
pub(crate) fn is_feature(column: &Column, policy: &Policy) -> bool {
    matches!(column.kind, Kind::Number | Kind::Integer)
        && !policy.is_masked(&column.name)
        && !policy.is_label(&column.name)
        && !policy.is_key(&column.name)
}
