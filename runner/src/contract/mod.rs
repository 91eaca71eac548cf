//! Contracts: proto3 source compiled, bound to a model, compared, turned into plans. Synchronous, no I/O, no transport.
//!
//! ```text
//! scan, compile   source -> descriptors
//! options         what is said about single fields
//! shape, value    a tensor as rows; one value between wire and tensor
//! bind            which field belongs to which tensor
//! columns         what the parts of a tensor are called, for those who write rows
//! decode, encode  the wire plans: protobuf bytes <-> tensors (the hot path)
//! json, csv       protobuf bytes <-> JSON, CSV
//! form            whole messages in any of these forms
//! infer           a contract for a model that has none
//! compat          what breaks clients of the old contract
//! openapi         the types as JSON schemas
//! ```
//! There is one way from a request to tensors, the wire plan; JSON and CSV become protobuf bytes first.

mod bind;
mod columns;
pub mod compat;
mod compile;
pub mod csv;
mod decode;
mod encode;
mod form;
mod infer;
mod json;
mod meaning;
pub mod openapi;
mod options;
#[cfg(test)]
mod oracle;
mod scan;
mod shape;
mod value;
mod wire;

use std::collections::BTreeMap;

use bytes::Bytes;
use prost_reflect::{FieldDescriptor, MessageDescriptor, MethodDescriptor};
use serde_json::{Value, json};

pub use columns::{Column, Part, RowForm};
pub use compile::Schema;
pub use decode::{Decoded, Decoder, Decoding};
pub use encode::Encoder;
pub use form::{Form as MessageForm, convert};
pub use infer::{Sample, infer};

use self::bind::{Fault, Form, Side};
use self::meaning::Meaning;
use self::options::Options;
use self::value::Direction;
use crate::bundle::FieldBinding;
use crate::config::Limits;
use crate::engine::Signature;
use crate::error::{Code, Error, Result};

/// Faults that are told in an error's text; all are in its details.
const SHOWN_FAULTS: usize = 8;

/// Where a contract comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Origin {
    /// It was pushed: a promise to clients.
    Pushed,
    /// It was made from the model, and may change with it.
    Inferred,
}

/// A compiled contract whose methods are bound to a model.
#[derive(Debug)]
pub struct Contract {
    pub schema: Schema,
    pub origin: Origin,
    pub methods: Vec<Method>,
    /// What bound fields promise, by their names and methods.
    meanings: BTreeMap<String, Meaning>,
}

/// A method, ready to be called.
#[derive(Debug)]
pub struct Method {
    /// `/package.Service/Method`
    pub path: String,
    pub descriptor: MethodDescriptor,
    pub request: Decoder,
    pub response: Encoder,
    /// The message of one row, for CSV.
    pub request_row: MessageDescriptor,
    pub response_row: MessageDescriptor,
    /// What the parts of the model's inputs and outputs are called in rows of this method.
    pub request_columns: Vec<Column>,
    pub response_columns: Vec<Column>,
    ignored: Vec<String>,
    json_values: usize,
}

impl Contract {
    /// Binds every method of a contract to a model.
    ///
    /// # Errors
    /// `CONTRACT_MODEL_MISMATCH` or `BINDING_AMBIGUOUS`, with every fault in the details.
    pub fn bind(
        schema: Schema,
        origin: Origin,
        signature: &Signature,
        manifest: &BTreeMap<String, FieldBinding>,
        limits: &Limits,
    ) -> Result<Self> {
        let options = Options::new(schema.pool(), manifest);
        let mut faults: Vec<(String, Fault)> = Vec::new();
        for name in options.unknown(schema.pool()) {
            let text = format!("[bind] of the manifest names {name:?}, which is no field of the contract");
            faults.push((String::new(), Fault::Mismatch { field: Some(name), tensor: None, text }));
        }
        let mut methods = Vec::new();
        let mut meanings = BTreeMap::new();
        for service in schema.file().services() {
            for descriptor in service.methods() {
                let name = format!("{}/{}", service.full_name(), descriptor.name());
                match bind_method(&descriptor, signature, &options, limits, &mut meanings) {
                    Ok(method) => methods.push(method),
                    Err(found) => faults.extend(found.into_iter().map(|fault| (name.clone(), fault))),
                }
            }
        }
        if faults.is_empty() {
            return Ok(Self { schema, origin, methods, meanings });
        }
        Err(refusal(&faults))
    }

    /// The contract of a model that came without one.
    ///
    /// # Errors
    /// `CONTRACT_MODEL_MISMATCH` if the model's tensors do not make a message.
    pub fn inferred(model: &str, signature: &Signature, limits: &Limits) -> Result<Self> {
        let cannot = |text: String| Error::new(Code::ContractModelMismatch, text);
        let source = infer(model, signature, None).map_err(cannot)?;
        let schema = Schema::compile(&file_name(model), source.as_bytes(), limits)?;
        Self::bind(schema, Origin::Inferred, signature, &BTreeMap::new(), limits)
    }

    /// What of `new` breaks clients of this contract.
    pub fn breaking(&self, new: &Self) -> Vec<compat::Breaking> {
        let new_schema = Some(&new.schema).filter(|_| new.origin == Origin::Pushed);
        let mut found = self.schema.breaking(new_schema);
        for (element, before) in &self.meanings {
            if let Some(after) = new.meanings.get(element) {
                found.extend(before.breaking(after, element));
            }
        }
        found
    }

    /// The method of this name; see [`Schema::method`].
    ///
    /// # Errors
    /// `BAD_REQUEST` with the names that there are.
    pub fn method(&self, name: Option<&str>) -> Result<&Method> {
        let descriptor = self.schema.method(name)?;
        let known = self.methods.iter().find(|method| method.descriptor == descriptor);
        known.ok_or_else(|| Error::new(Code::Internal, "a method is not bound"))
    }

    /// Full names of its services.
    pub fn services(&self) -> impl Iterator<Item = String> {
        self.schema.file().services().map(|service| service.full_name().to_owned())
    }
}

impl Schema {
    /// What breaks clients of this contract when `new` takes its place; `None` for no contract at all. Without the
    /// model's part in it, for which both must be bound.
    pub fn breaking(&self, new: Option<&Self>) -> Vec<compat::Breaking> {
        match new {
            Some(new) => compat::breaking(self.file(), new.file()),
            None => {
                let gone = |service: prost_reflect::ServiceDescriptor| compat::Breaking {
                    rule: "SERVICE_NO_DELETE",
                    element: service.full_name().to_owned(),
                    before: "served".to_owned(),
                    after: "no contract".to_owned(),
                };
                self.file().services().map(gone).collect()
            }
        }
    }
}

/// The refusal of a contract that breaks clients of the one before.
pub fn breaking_error(changes: &[compat::Breaking]) -> Error {
    let show = |change: &compat::Breaking| {
        format!("- {} {}: {} -> {}", change.rule, change.element, change.before, change.after)
    };
    let shown: Vec<String> = changes.iter().take(SHOWN_FAULTS).map(show).collect();
    let more = changes.len().saturating_sub(SHOWN_FAULTS);
    let more = if more > 0 { format!("\nand {more} more") } else { String::new() };
    Error::new(
        Code::ContractBreaking,
        format!("the new contract breaks clients of the old one:\n{}{more}", shown.join("\n")),
    )
    .with_details(json!({ "breaking": changes }))
}

/// Every rule that a change of a contract can break, with what it forbids.
pub fn rules() -> impl Iterator<Item = (&'static str, &'static str)> {
    compat::RULES.iter().chain(meaning::RULES).copied()
}

/// Is a service in the package that a model's inferred contract has? Nobody else may use it.
pub fn is_own_package(model: &str, service: &str) -> bool {
    service.rsplit_once('.').is_some_and(|(package, _)| package == infer::package_of(model))
}

/// What the file of a model's contract is called.
pub fn file_name(model: &str) -> String {
    format!("{model}.proto")
}

fn bind_method(
    descriptor: &MethodDescriptor,
    signature: &Signature,
    options: &Options<'_>,
    limits: &Limits,
    meanings: &mut BTreeMap<String, Meaning>,
) -> std::result::Result<Method, Vec<Fault>> {
    let (input, output) = (descriptor.input(), descriptor.output());
    let request = Side { specs: &signature.inputs, direction: Direction::Request, options };
    let response = Side { specs: &signature.outputs, direction: Direction::Response, options };
    let (request, response) = match (request.bind(&input), response.bind(&output)) {
        (Ok(request), Ok(response)) => (request, response),
        (request, response) => {
            return Err(request.err().into_iter().chain(response.err()).flatten().collect());
        }
    };
    let is_batch = request.is_batch() || descriptor.is_client_streaming();
    let varies = |tensor: usize| {
        let spec = signature.outputs.get(tensor);
        spec.is_some_and(|spec| shape::RowShape::of(spec).batch == shape::Batch::Varies)
    };
    let has_rows = response.leaves.iter().any(|leaf| varies(leaf.tensor));
    if is_batch && has_rows && !response.is_batch() && !descriptor.is_server_streaming() {
        return Err(vec![Fault::Mismatch {
            field: Some(output.full_name().to_owned()),
            tensor: None,
            text: format!(
                "a request of {} is a batch, and {} holds one row; put the rows in a repeated field, or stream them",
                input.full_name(),
                output.full_name()
            ),
        }]);
    }
    meanings.extend(meaning::meanings(descriptor, &request, &signature.inputs, Direction::Request));
    meanings.extend(meaning::meanings(descriptor, &response, &signature.outputs, Direction::Response));
    let ignored = input.parent_pool().all_messages().flat_map(|message| {
        let ignored = message.fields().filter(|field| options.of(field).ignore);
        ignored.map(|field| field.full_name().to_owned()).collect::<Vec<_>>()
    });
    Ok(Method {
        path: format!("/{}/{}", descriptor.parent_service().full_name(), descriptor.name()),
        descriptor: descriptor.clone(),
        request: Decoder::new(&input, &request, &signature.inputs, limits),
        response: Encoder::new(&response, &signature.outputs),
        request_columns: columns::of(&request),
        response_columns: columns::of(&response),
        request_row: request.row,
        response_row: match response.form {
            Form::Rows(_) => response.row,
            Form::Row | Form::Columns => output,
        },
        ignored: ignored.collect(),
        json_values: limits.json_values,
    })
}

impl Method {
    /// The request's bytes from its JSON.
    ///
    /// # Errors
    /// `BAD_JSON`, `DECODE_LIMIT`.
    pub fn request_from_json(&self, text: &[u8]) -> Result<Vec<u8>> {
        json::read(&self.descriptor.input(), text, self.json_values)
    }

    /// An answer's bytes as JSON.
    ///
    /// # Errors
    /// `INTERNAL`.
    pub fn response_to_json(&self, bytes: Bytes) -> Result<Vec<u8>> {
        json::write(&self.descriptor.output(), bytes)
    }

    /// Is a field accepted and not read?
    pub fn is_ignored(&self, field: &FieldDescriptor) -> bool {
        self.ignored.iter().any(|name| name == field.full_name())
    }

    /// Does a stream stand on either side?
    pub fn is_streaming(&self) -> bool {
        self.descriptor.is_client_streaming() || self.descriptor.is_server_streaming()
    }
}

/// All faults in one error.
fn refusal(faults: &[(String, Fault)]) -> Error {
    let mut lines = Vec::new();
    let mut details = Vec::new();
    let mut seen = std::collections::BTreeSet::new();
    for (method, fault) in faults {
        let (line, detail) = match fault {
            Fault::Mismatch { field, tensor, text } => (
                text.clone(),
                json!({ "method": method, "field": field, "tensor": tensor, "text": text, "readings": [] }),
            ),
            Fault::Ambiguous { text, readings } => (
                format!("{text}: {}", readings.join("; or ")),
                json!({ "method": method, "field": null, "tensor": null, "text": text, "readings": readings }),
            ),
        };
        // Several methods with one message have the same faults.
        if seen.insert(line.clone()) {
            lines.push(line);
        }
        details.push(detail);
    }
    let ambiguous = faults.iter().all(|(_, fault)| matches!(fault, Fault::Ambiguous { .. }));
    let code = if ambiguous { Code::BindingAmbiguous } else { Code::ContractModelMismatch };
    let more = lines.len().saturating_sub(SHOWN_FAULTS);
    lines.truncate(SHOWN_FAULTS);
    let more = if more > 0 { format!("\nand {more} more") } else { String::new() };
    let text = format!("contract and model do not fit:\n- {}{more}", lines.join("\n- "));
    Error::new(code, text)
        .with_details(Value::Object([("mismatches".to_owned(), Value::Array(details))].into_iter().collect()))
}
