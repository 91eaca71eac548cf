//! What is kept of a model's requests, and under which names: decided once, when a version is prepared.
//!
//! A row is written under the contract's names, those of its first method, whichever way the request came; what the
//! contract does not name has its tensor's name. A mask counts for the elements of a tensor, not for a name: whoever
//! reaches the same element by another method or as a plain tensor meets the same mask.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use crate::bundle::{Mask, RequestLogSettings};
use crate::contract::{Column, Contract, Method, Part, RowForm};
use crate::engine::{Signature, TensorSpec};
use crate::error::{Code, Error, Result};

/// Names that a refusal lists.
const SHOWN_NAMES: usize = 20;

/// What of requests and answers is written.
#[derive(Debug)]
pub struct Plan {
    pub(super) sample: f64,
    pub(super) max_row_bytes: usize,
    pub(super) inputs: Side,
    pub(super) outputs: Side,
    /// `{"age":"remove"}`, in JSON; empty if nothing is masked.
    pub(super) masked: Vec<u8>,
}

/// The fields of one side, in the order in which they are written.
#[derive(Debug)]
pub(super) struct Side {
    pub(super) fields: Vec<Field>,
    /// By position of the tensor: does its first dimension count rows?
    pub(super) counts_rows: Vec<bool>,
}

/// A value of a row.
#[derive(Debug)]
pub(super) struct Field {
    /// `"age":`, in JSON.
    pub(super) key: Vec<u8>,
    /// Position among the inputs or outputs.
    pub(super) tensor: usize,
    pub(super) part: Part,
    pub(super) mask: Option<Mask>,
}

impl Side {
    /// Is anything of this tensor written?
    pub(super) fn keeps(&self, tensor: usize) -> bool {
        self.fields.iter().any(|field| field.tensor == tensor)
    }
}

impl Plan {
    /// Reads `[request_log]` against the model.
    ///
    /// # Errors
    /// `BAD_MANIFEST` for a name that is neither a field of the contract nor a tensor.
    pub fn new(
        settings: &RequestLogSettings,
        signature: &Signature,
        contract: Option<&Contract>,
    ) -> Result<Self> {
        let methods = contract.map_or(&[][..], |contract| contract.methods.as_slice());
        let inputs = Names::new(&signature.inputs, methods, |method| method.request_columns.as_slice());
        let outputs = Names::new(&signature.outputs, methods, |method| method.response_columns.as_slice());
        for name in settings.mask.keys() {
            // What the contract accepts and does not read reaches no tensor, and so no log.
            let is_ignored = methods.iter().any(|method| {
                method.request_row.get_field_by_name(name).is_some_and(|field| method.is_ignored(&field))
            });
            if !is_ignored && inputs.parts(name).is_empty() && outputs.parts(name).is_empty() {
                return Err(unknown("mask", name, inputs.known().chain(outputs.known())));
            }
        }
        let mut masked = BTreeMap::new();
        let inputs = inputs.side("inputs", settings.inputs.as_deref(), &settings.mask, &mut masked)?;
        let outputs = outputs.side("outputs", settings.outputs.as_deref(), &settings.mask, &mut masked)?;
        let masked = if masked.is_empty() { Vec::new() } else { Value::from_iter(masked).to_string().into() };
        Ok(Self { sample: settings.sample, max_row_bytes: settings.max_row_bytes, inputs, outputs, masked })
    }

    /// Does it need the server's secret?
    pub fn needs_salt(&self) -> bool {
        let mut fields = self.inputs.fields.iter().chain(&self.outputs.fields);
        fields.any(|field| field.mask == Some(Mask::Hash))
    }
}

/// One side's names, and the parts of tensors that they stand for.
struct Names<'a> {
    specs: &'a [TensorSpec],
    /// Of every method; the first one's are those that are written.
    columns: Vec<&'a [Column]>,
}

impl<'a> Names<'a> {
    fn new(
        specs: &'a [TensorSpec],
        methods: &'a [Method],
        columns: impl Fn(&'a Method) -> &'a [Column],
    ) -> Self {
        Self { specs, columns: methods.iter().map(columns).collect() }
    }

    fn parts(&self, name: &str) -> Vec<(usize, Part)> {
        let columns = self.columns.iter().copied().flatten().filter(|column| column.name == name);
        let tensors = self.specs.iter().enumerate().filter(|(_, spec)| spec.name == name);
        columns
            .map(|column| (column.tensor, column.part.clone()))
            .chain(tensors.map(|(position, _)| (position, Part::Whole)))
            .collect()
    }

    fn known(&self) -> impl Iterator<Item = &'a str> + use<'a> {
        let columns = self.columns.clone().into_iter().flatten().map(|column| column.name.as_str());
        columns.chain(self.specs.iter().map(|spec| spec.name.as_str()))
    }

    /// The columns that are written: those of the first method, and tensors that it does not name.
    fn written(&self) -> Vec<Column> {
        let mut columns = self.columns.first().map(|columns| columns.to_vec()).unwrap_or_default();
        for (tensor, spec) in self.specs.iter().enumerate() {
            if !columns.iter().any(|column| column.tensor == tensor) {
                let part = if RowForm::of(spec).is_single { Part::Cell(0) } else { Part::Whole };
                columns.push(Column { name: spec.name.clone(), tensor, part });
            }
        }
        columns
    }

    fn side(
        &self,
        title: &str,
        kept: Option<&[String]>,
        masks: &BTreeMap<String, Mask>,
        masked: &mut BTreeMap<String, Value>,
    ) -> Result<Side> {
        let kept: Option<Vec<(usize, Part)>> = match kept {
            None => None,
            Some(names) => {
                let mut parts = Vec::new();
                for name in names {
                    let found = self.parts(name);
                    if found.is_empty() {
                        return Err(unknown(title, name, self.known()));
                    }
                    parts.extend(found);
                }
                Some(parts)
            }
        };
        let masks: Vec<(Mask, Vec<(usize, Part)>)> =
            masks.iter().map(|(name, mask)| (*mask, self.parts(name))).collect();
        let mut fields = Vec::new();
        for column in self.written() {
            let touches = |parts: &[(usize, Part)]| {
                parts.iter().any(|(tensor, part)| *tensor == column.tensor && overlap(part, &column.part))
            };
            if kept.as_deref().is_some_and(|kept| !touches(kept)) {
                continue;
            }
            let mask = masks.iter().filter(|(_, parts)| touches(parts)).map(|(mask, _)| *mask).max();
            if let Some(mask) = mask {
                let word = match mask {
                    Mask::Hash => "hash",
                    Mask::Redact => "redact",
                    Mask::Remove => "remove",
                };
                masked.insert(column.name.clone(), word.into());
            }
            if mask != Some(Mask::Remove) {
                let key = format!("{}:", Value::from(column.name)).into_bytes();
                fields.push(Field { key, tensor: column.tensor, part: column.part, mask });
            }
        }
        let counts_rows = self.specs.iter().map(|spec| RowForm::of(spec).counts_rows).collect();
        Ok(Side { fields, counts_rows })
    }
}

/// Have two parts of one tensor an element in common?
fn overlap(one: &Part, other: &Part) -> bool {
    match (one, other) {
        (Part::Cell(one), Part::Cell(other)) => one == other,
        _ => true,
    }
}

fn unknown<'a>(key: &str, name: &str, known: impl Iterator<Item = &'a str>) -> Error {
    let known: BTreeSet<&str> = known.collect();
    let shown: Vec<&str> = known.iter().copied().take(SHOWN_NAMES).collect();
    let more = if known.len() > shown.len() { ", ..." } else { "" };
    let name: String = name.chars().take(100).collect();
    Error::new(
        Code::BadManifest,
        format!(
            "request_log.{key} names {name:?}, which is no field of the contract and no tensor; there are {}{more}",
            shown.join(", ")
        ),
    )
}

#[cfg(test)]
mod tests {
    use super::super::testing::{iris_contract, iris_signature, settings};
    use super::*;

    fn plan(toml: &str) -> Result<Plan> {
        Plan::new(&settings(toml), &iris_signature(), Some(&iris_contract()))
    }

    fn keys(side: &Side) -> Vec<String> {
        let text = |field: &Field| String::from_utf8_lossy(&field.key).trim_end_matches(':').to_owned();
        side.fields.iter().map(text).collect()
    }

    #[test]
    fn names_are_the_contracts_and_tensors_names_mean_the_same_elements() {
        let all = plan("sample = 1").expect("a plan");
        assert_eq!(
            keys(&all.inputs),
            [r#""sepal_length""#, r#""sepal_width""#, r#""petal_length""#, r#""petal_width""#]
        );
        assert_eq!(keys(&all.outputs), [r#""label""#, r#""probabilities""#]);
        assert!(all.masked.is_empty() && !all.needs_salt());

        let masked =
            plan("sample = 1\nmask = { X = \"redact\", petal_width = \"remove\", label = \"hash\" }");
        let masked = masked.expect("a plan");
        assert_eq!(keys(&masked.inputs), [r#""sepal_length""#, r#""sepal_width""#, r#""petal_length""#]);
        assert!(masked.inputs.fields.iter().all(|field| field.mask == Some(Mask::Redact)));
        assert!(masked.needs_salt());
        assert_eq!(
            String::from_utf8_lossy(&masked.masked),
            r#"{"label":"hash","petal_length":"redact","petal_width":"remove","sepal_length":"redact","sepal_width":"redact"}"#
        );
    }

    #[test]
    fn a_mask_counts_for_the_elements_whatever_another_method_calls_them() {
        // `Second` names the first column `length`; rows are written under the names of `Classify`.
        let masked = plan("sample = 1\nmask = { length = \"remove\" }").expect("a plan");
        assert_eq!(keys(&masked.inputs), [r#""sepal_width""#, r#""petal_length""#, r#""petal_width""#]);
    }

    #[test]
    fn lists_keep_what_they_name() {
        let some = plan("sample = 1\ninputs = [\"petal_width\"]\noutputs = []").expect("a plan");
        assert_eq!(keys(&some.inputs), [r#""petal_width""#]);
        assert!(some.outputs.fields.is_empty() && some.inputs.keeps(0) && !some.outputs.keeps(0));
    }

    #[test]
    fn without_a_contract_names_are_the_tensors() {
        let plan = Plan::new(&settings("sample = 1"), &iris_signature(), None).expect("a plan");
        assert_eq!(keys(&plan.inputs), [r#""X""#]);
        assert_eq!(plan.inputs.fields[0].part, Part::Whole);
        assert_eq!(plan.outputs.fields[0].part, Part::Cell(0), "a row of one element is a value");
    }

    #[test]
    fn unknown_names_are_refused_with_those_that_there_are() {
        for (toml, key) in [
            ("sample = 1\nmask = { age = \"remove\" }", "request_log.mask names \"age\""),
            ("sample = 1\ninputs = [\"label\"]", "request_log.inputs names \"label\""),
            ("sample = 1\noutputs = [\"sepal_length\"]", "request_log.outputs names \"sepal_length\""),
        ] {
            let error = plan(toml).expect_err(toml);
            assert_eq!(error.code(), Code::BadManifest);
            assert!(error.text().contains(key) && error.text().contains("there are"), "{error}");
        }
        plan("sample = 1\nmask = { customer = \"remove\" }").expect("a field that is not read is in no log");
    }
}
