//! What a model takes and answers, and its JSON form.

use std::fmt::Write;

use crate::datatype::Datatype;

/// Inputs and outputs of a model, in order. -1 in a shape stands for any size.
///
/// ```
/// use baton_model_abi::{Datatype, Signature};
///
/// let signature = Signature::new()
///     .input("pixels", Datatype::Fp32, &[-1, 784])
///     .output("probabilities", Datatype::Fp32, &[-1, 2])
///     .labels(["cat", "dog"]);
/// ```
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Signature {
    inputs: Vec<Spec>,
    outputs: Vec<Spec>,
}

/// One input or output.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Spec {
    pub(crate) name: String,
    pub(crate) datatype: Datatype,
    pub(crate) shape: Vec<i64>,
    labels: Vec<String>,
}

impl Signature {
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds an input.
    #[must_use]
    pub fn input(mut self, name: impl Into<String>, datatype: Datatype, shape: &[i64]) -> Self {
        self.inputs.push(Spec::new(name.into(), datatype, shape));
        self
    }

    /// Adds an output.
    #[must_use]
    pub fn output(mut self, name: impl Into<String>, datatype: Datatype, shape: &[i64]) -> Self {
        self.outputs.push(Spec::new(name.into(), datatype, shape));
        self
    }

    /// Names the elements of the last dimension of the output that was added last. Without an output nothing happens.
    #[must_use]
    pub fn labels<L: Into<String>>(mut self, labels: impl IntoIterator<Item = L>) -> Self {
        if let Some(output) = self.outputs.last_mut() {
            output.labels = labels.into_iter().map(Into::into).collect();
        }
        self
    }

    /// What `describe` answers.
    #[must_use]
    pub fn to_json(&self) -> String {
        let side = |specs: &[Spec]| list(specs.iter().map(Spec::to_json));
        format!("{{\"inputs\":{},\"outputs\":{}}}", side(&self.inputs), side(&self.outputs))
    }

    pub(crate) fn inputs(&self) -> &[Spec] {
        &self.inputs
    }

    pub(crate) fn outputs(&self) -> &[Spec] {
        &self.outputs
    }
}

impl Spec {
    fn new(name: String, datatype: Datatype, shape: &[i64]) -> Self {
        Self { name, datatype, shape: shape.to_vec(), labels: Vec::new() }
    }

    fn to_json(&self) -> String {
        let shape = list(self.shape.iter().map(i64::to_string));
        let name = quoted(&self.name);
        let mut json = format!("{{\"name\":{name},\"datatype\":\"{}\",\"shape\":{shape}", self.datatype);
        if !self.labels.is_empty() {
            json.push_str(",\"labels\":");
            json.push_str(&list(self.labels.iter().map(|label| quoted(label))));
        }
        json.push('}');
        json
    }

    /// Is a shape the described one?
    pub(crate) fn takes(&self, shape: &[i64]) -> bool {
        self.shape.len() == shape.len()
            && self.shape.iter().zip(shape).all(|(wanted, got)| *wanted < 0 || wanted == got)
    }
}

fn list(items: impl Iterator<Item = String>) -> String {
    format!("[{}]", items.collect::<Vec<_>>().join(","))
}

/// A JSON string: only quotes, backslashes and control characters have to be escaped.
fn quoted(text: &str) -> String {
    let mut json = String::with_capacity(text.len() + 2);
    json.push('"');
    for char in text.chars() {
        match char {
            '"' => json.push_str("\\\""),
            '\\' => json.push_str("\\\\"),
            '\0'..='\x1f' => {
                // Writing to a string cannot fail.
                let _ = write!(json, "\\u{:04x}", u32::from(char));
            }
            char => json.push(char),
        }
    }
    json.push('"');
    json
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_description_has_the_form_of_the_protocol() {
        let signature = Signature::new()
            .input("x", Datatype::Fp32, &[-1, 4])
            .input("n", Datatype::Int64, &[])
            .output("y", Datatype::Bool, &[-1])
            .output("p", Datatype::Fp64, &[-1, 2])
            .labels(["a", "b"]);
        let expected = concat!(
            r#"{"inputs":[{"name":"x","datatype":"FP32","shape":[-1,4]},{"name":"n","datatype":"INT64","shape":[]}],"#,
            r#""outputs":[{"name":"y","datatype":"BOOL","shape":[-1]},"#,
            r#"{"name":"p","datatype":"FP64","shape":[-1,2],"labels":["a","b"]}]}"#
        );
        assert_eq!(signature.to_json(), expected);
        assert_eq!(Signature::new().labels(["lost"]).to_json(), r#"{"inputs":[],"outputs":[]}"#);
    }

    #[test]
    fn every_character_comes_back_from_a_json_parser() {
        let all: String = ('\0'..='\u{2fff}').chain(['\u{feff}', '\u{fffd}', '😀', '\u{10ffff}']).collect();
        let json =
            Signature::new().output(all.clone(), Datatype::Bytes, &[-1]).labels([all.clone()]).to_json();
        let value: serde_json::Value = serde_json::from_str(&json).expect("JSON");
        assert_eq!(value["outputs"][0]["name"], all.as_str());
        assert_eq!(value["outputs"][0]["labels"][0], all.as_str());
    }
}
