//! A signature as JSON: what a native model describes itself with, and what a worker tells the server of its model.
//!
//! The form is that of the Open Inference Protocol's model metadata, `{"inputs": [{"name", "datatype", "shape"}],
//! "outputs": [...]}`; `labels` (of the last dimension), `dimensions` (names of those that vary) and an absent `shape`
//! (any) are additions. Whoever wrote it is not trusted.

use std::collections::HashSet;

use serde::{Deserialize, Serialize};

use super::{Signature, TensorSpec};
use crate::tensor::{Dim, Dtype};

/// Tensors on one side.
const MOST_TENSORS: usize = 256;
/// Dimensions of one tensor.
const MOST_DIMENSIONS: usize = 16;
/// Characters of a name or label.
const LONGEST_NAME: usize = 256;

#[derive(Serialize, Deserialize)]
struct Description {
    inputs: Vec<Described>,
    outputs: Vec<Described>,
}

#[derive(Serialize, Deserialize)]
struct Described {
    name: String,
    datatype: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    shape: Option<Vec<i64>>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    dimensions: Vec<Option<String>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    labels: Option<Vec<String>>,
}

/// Reads a description.
///
/// # Errors
/// What is wrong with it, as the end of a sentence.
pub(super) fn parse(json: &[u8]) -> Result<Signature, String> {
    let description: Description = serde_json::from_slice(json).map_err(|error| {
        let what: String = error.to_string().chars().take(200).collect();
        format!("it is not the JSON that was expected: {what}")
    })?;
    let specs = |side: &str, described: Vec<Described>| -> Result<Vec<TensorSpec>, String> {
        if described.len() > MOST_TENSORS {
            return Err(format!("it has {} {side}, at most {MOST_TENSORS} can be served", described.len()));
        }
        let mut names = HashSet::new();
        if let Some(twice) = described.iter().find(|tensor| !names.insert(tensor.name.as_str())) {
            return Err(format!("its {side} have the name {:?} twice", twice.name));
        }
        described.into_iter().map(spec).collect()
    };
    let signature = Signature {
        inputs: specs("inputs", description.inputs)?,
        outputs: specs("outputs", description.outputs)?,
    };
    if signature.outputs.is_empty() {
        return Err("it has no output".to_owned());
    }
    Ok(signature)
}

fn spec(described: Described) -> Result<TensorSpec, String> {
    let Described { name, datatype, shape, dimensions, labels } = described;
    let shown: String = name.chars().take(64).collect();
    let is_fit = |text: &str| text.chars().count() <= LONGEST_NAME && !text.contains('\0');
    if name.is_empty() || !is_fit(&name) {
        return Err(format!("a name must have 1 to {LONGEST_NAME} characters, {shown:?} does not"));
    }
    let dtype = Dtype::from_name(&datatype).ok_or_else(|| {
        let datatype: String = datatype.chars().take(64).collect();
        format!("{shown:?} has the unknown datatype {datatype:?}")
    })?;
    if shape
        .as_ref()
        .is_some_and(|shape| shape.len() > MOST_DIMENSIONS || shape.iter().any(|size| *size < -1))
    {
        return Err(format!(
            "the shape of {shown:?} must have at most {MOST_DIMENSIONS} dimensions, each -1 (any) or a size"
        ));
    }
    if labels
        .as_ref()
        .is_some_and(|labels| labels.len() > 100_000 || !labels.iter().all(|label| is_fit(label)))
    {
        return Err(format!("the labels of {shown:?} are too many or too long"));
    }
    let named = |position: usize| dimensions.get(position).cloned().flatten().filter(|name| is_fit(name));
    let dim = |(position, size): (usize, i64)| match size {
        0.. => Dim::Fixed(size),
        _ => Dim::Any(named(position)),
    };
    let shape = shape.map(|shape| shape.into_iter().enumerate().map(dim).collect());
    Ok(TensorSpec { name, dtype, shape, labels })
}

/// Writes a description.
pub(super) fn write(signature: &Signature) -> String {
    let described = |specs: &[TensorSpec]| specs.iter().map(describe).collect();
    let description =
        Description { inputs: described(&signature.inputs), outputs: described(&signature.outputs) };
    // Strings and numbers cannot fail to be written.
    serde_json::to_string(&description).unwrap_or_default()
}

fn describe(spec: &TensorSpec) -> Described {
    let name = |dim: &Dim| match dim {
        Dim::Any(name) => name.clone(),
        Dim::Fixed(_) => None,
    };
    let dims = spec.shape.as_deref();
    Described {
        name: spec.name.clone(),
        datatype: spec.dtype.name().to_owned(),
        shape: dims.map(|dims| dims.iter().map(Dim::wire).collect()),
        dimensions: dims.unwrap_or_default().iter().map(name).collect(),
        labels: spec.labels.clone(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read_back() {
        let spec = |name: &str, dtype, shape: Option<Vec<Dim>>, labels: Option<Vec<&str>>| TensorSpec {
            name: name.to_owned(),
            dtype,
            shape,
            labels: labels.map(|labels| labels.into_iter().map(str::to_owned).collect()),
        };
        let signature = Signature {
            inputs: vec![
                spec(
                    "x \"\n",
                    Dtype::Fp32,
                    Some(vec![Dim::Any(Some("batch".to_owned())), Dim::Fixed(4)]),
                    None,
                ),
                spec("anything", Dtype::Bytes, None, None),
                spec("scalar", Dtype::Bool, Some(vec![]), None),
            ],
            outputs: vec![spec("y", Dtype::Int64, Some(vec![Dim::Any(None)]), Some(vec!["a", "b"]))],
        };
        assert_eq!(parse(write(&signature).as_bytes()), Ok(signature));
    }

    #[test]
    fn what_cannot_be_served_is_refused_with_a_reason() {
        let tensors = |count: usize| {
            let one = |index| format!(r#"{{"name":"x{index}","datatype":"FP32","shape":[1]}}"#);
            (0..count).map(one).collect::<Vec<_>>().join(",")
        };
        let many = format!(r#"{{"inputs":[{}],"outputs":[{}]}}"#, tensors(300), tensors(1));
        for (json, expected) in [
            ("", "JSON"),
            ("[]", "JSON"),
            (r#"{"inputs":[]}"#, "outputs"),
            (r#"{"inputs":[],"outputs":[]}"#, "no output"),
            (&many, "300 inputs"),
            (r#"{"inputs":[],"outputs":[{"name":"y","datatype":"FLOAT","shape":[1]}]}"#, "FLOAT"),
            (r#"{"inputs":[],"outputs":[{"name":"","datatype":"FP32","shape":[1]}]}"#, "name"),
            (r#"{"inputs":[],"outputs":[{"name":"y","datatype":"FP32","shape":[-2]}]}"#, "shape"),
            (
                r#"{"inputs":[],"outputs":[{"name":"y","datatype":"FP32"},{"name":"y","datatype":"FP32"}]}"#,
                "twice",
            ),
        ] {
            let refusal = parse(json.as_bytes()).expect_err(json);
            assert!(refusal.contains(expected), "{json}: {refusal}");
        }
    }
}
