//! Rows against a contract, by the runner's own reader of CSV: what is accepted here as a row of training data is what the
//! data port accepts as a row of a request.

use baton_data::{Code, Column, ContractPolicy, ExtraColumns, Finding, Policy, Table};
use baton_runner::config::Limits;
use baton_runner::contract::csv::RecordReader;
use baton_runner::contract::{Schema, is_own_package};
use csv::StringRecord;
use prost_reflect::{Kind, MessageDescriptor};

/// Rows that are told.
const MOST_ROWS: usize = 20;

/// A compiled contract, and which of its messages is a row.
#[derive(Debug)]
pub(super) struct RowContract {
    row: MessageDescriptor,
}

impl RowContract {
    /// Compiles the text of a `.proto`.
    ///
    /// # Errors
    /// The compiler's, or that of a method or message that is not there, in words.
    pub(super) fn compile(source: &str, wanted: &ContractPolicy) -> Result<Self, String> {
        let schema = Schema::compile("contract.proto", source.as_bytes(), &Limits::default())
            .map_err(|error| error.to_string())?;
        let row = match wanted.message() {
            Some(name) => schema
                .file()
                .messages()
                .find(|message| message.full_name() == name || message.name() == name)
                .ok_or_else(|| format!("the contract has no message {name}"))?,
            None => row_of(schema.method(wanted.method()).map_err(|error| error.to_string())?.input()),
        };
        Ok(Self { row })
    }

    /// What of a table does not fit. Label and key are no part of a request. Rows with cells without a value are left to
    /// the policy's `nulls`: a model is trained on them, or it is not.
    pub(super) fn check(&self, table: &Table, policy: &Policy) -> Vec<Finding> {
        let known = |name: &str| {
            let first = name.split(['.', '[']).next().unwrap_or(name);
            let is = |field: prost_reflect::FieldDescriptor| {
                [field.name(), field.json_name()].iter().any(|known| *known == name || *known == first)
            };
            self.row.fields().any(is)
        };
        let apart = |name: &str| policy.label.as_deref() == Some(name) || policy.key.as_deref() == Some(name);
        let mut findings = Vec::new();
        let mut columns: Vec<&Column> = Vec::new();
        for column in &table.columns {
            if known(&column.name) && (!apart(&column.name) || self.has_field(&column.name)) {
                columns.push(column);
            } else if !apart(&column.name) && policy.extra_columns == ExtraColumns::Refuse {
                let text = format!("{} has no field for column {}", self.row.full_name(), column.name);
                findings.push(Finding::new(Code::Contract, text).in_column(&column.name));
            }
        }
        let header: StringRecord = columns.iter().map(|column| column.name.as_str()).collect();
        let reader = match RecordReader::new(&self.row, &header, &|_| false) {
            Ok(reader) => reader,
            Err(error) => {
                findings.push(Finding::new(Code::Contract, error.text));
                return findings;
            }
        };
        findings.extend(unfit_rows(&reader, &columns, table, policy));
        findings
    }

    fn has_field(&self, name: &str) -> bool {
        self.row.fields().any(|field| field.name() == name || field.json_name() == name)
    }
}

fn unfit_rows(reader: &RecordReader, columns: &[&Column], table: &Table, policy: &Policy) -> Option<Finding> {
    // The reader quotes cells, and does not say of which column.
    let is_private = columns.iter().any(|column| policy.is_masked(&column.name));
    let (mut rows, mut count, mut first) = (Vec::new(), 0_u64, String::new());
    let mut bytes = Vec::new();
    for row in (0..table.rows()).filter(|row| !columns.iter().any(|column| column.is_null(*row))) {
        let record: StringRecord = columns.iter().map(|column| column.cell(row)).collect();
        bytes.clear();
        if let Err(error) = reader.read(&record, &mut bytes) {
            if count == 0 {
                let what = if is_private { "it does not fit the contract" } else { &error.text };
                first = format!("row {} (line {}): {what}", row + 1, table.line(row));
            }
            if rows.len() < MOST_ROWS {
                rows.push(row as u64 + 1);
            }
            count += 1;
        }
    }
    let text = match count {
        0 => return None,
        1 => first,
        count => format!("{count} rows do not fit the contract; {first}"),
    };
    let mut finding = Finding::new(Code::Contract, text);
    (finding.rows, finding.count) = (rows, count);
    Some(finding)
}

/// The message that is a row of a request: the element of the one list that the request holds, at any depth, or the
/// request itself. The rule of the runner's own conversion of CSV without a model.
fn row_of(request: MessageDescriptor) -> MessageDescriptor {
    let mut at = request.clone();
    for _ in 0..16 {
        let fields: Vec<_> = at.fields().collect();
        let [field] = fields.as_slice() else { break };
        let Kind::Message(inner) = field.kind() else { break };
        if field.is_map() || inner.package_name() == "google.protobuf" {
            break;
        }
        if field.is_list() {
            return inner;
        }
        at = inner;
    }
    request
}

/// Was the contract made for the model by the runner? It promises nothing then (ADR 0009).
pub(super) fn is_inferred(source: &str, model: &str) -> bool {
    Schema::compile("contract.proto", source.as_bytes(), &Limits::default()).is_ok_and(|schema| {
        schema.file().services().all(|service| is_own_package(model, service.full_name()))
    })
}
