//! Golden rows (`golden.jsonl`): inputs with the outputs that they must give, one JSON object a line.
//!
//! Two forms are read. Short: `{"inputs": {"X": [[5.1, 3.5]]}, "outputs": {"label": [0]}}`, datatypes from the model,
//! shapes from the nesting. Long: lists of tensors as in the Open Inference Protocol, with `name`, `datatype`, `shape`
//! and `data`. Either may have `name` and `tolerance`. Only outputs that are listed are compared.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::value::RawValue;

use crate::error::{Code, Error, Result};
use crate::tensor::{Dtype, Tensor, TensorError, Tolerance, json};

/// One row.
#[derive(Debug)]
pub struct GoldenRow {
    /// Line in the file, from 1.
    pub line: usize,
    pub name: Option<String>,
    pub tolerance: Option<Tolerance>,
    pub inputs: Vec<RowInput>,
    pub outputs: Vec<RowInput>,
}

/// A tensor of a row; its datatype may be left to the model.
#[derive(Debug)]
pub struct RowInput {
    pub name: String,
    dtype: Option<Dtype>,
    shape: Option<Vec<i64>>,
    data: Box<RawValue>,
}

impl RowInput {
    /// The tensor, with the model's datatype where the row gives none.
    ///
    /// # Errors
    /// [`TensorError`] if the data does not fit.
    pub fn tensor(&self, declared: Dtype) -> std::result::Result<Tensor, TensorError> {
        let dtype = self.dtype.unwrap_or(declared);
        let text = self.data.get().as_bytes();
        match &self.shape {
            Some(shape) => json::read(dtype, shape.clone(), text),
            None => json::read_nested(dtype, text),
        }
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Line {
    #[serde(default)]
    name: Option<String>,
    #[serde(default)]
    tolerance: Option<Tolerance>,
    inputs: Box<RawValue>,
    outputs: Box<RawValue>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct LongTensor {
    name: String,
    datatype: String,
    shape: Vec<i64>,
    data: Box<RawValue>,
}

/// Reads a file of golden rows; empty lines are skipped, an empty file has none.
///
/// # Errors
/// `BAD_GOLDEN` with the line.
pub fn parse_golden(bytes: &[u8], max_rows: usize) -> Result<Vec<GoldenRow>> {
    let text = std::str::from_utf8(bytes)
        .map_err(|_| Error::new(Code::BadGolden, "the golden rows are no UTF-8 text"))?;
    let mut rows = Vec::new();
    for (index, line) in text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty()) {
        let number = index + 1;
        if rows.len() == max_rows {
            return Err(Error::new(Code::BadGolden, format!("more than {max_rows} golden rows")));
        }
        rows.push(parse_line(number, line)?);
    }
    Ok(rows)
}

fn parse_line(number: usize, line: &str) -> Result<GoldenRow> {
    let bad = |what: String| Error::new(Code::BadGolden, format!("golden row in line {number}: {what}"));
    let unreadable = |error: serde_json::Error| {
        bad("expected {\"inputs\": {...}, \"outputs\": {...}} with optional \"name\" and \"tolerance\""
            .to_owned())
        .caused_by(error)
    };
    let row: Line = serde_json::from_str(&json::quote_non_finite(line)).map_err(unreadable)?;
    let tensors = |text: &RawValue| -> Result<Vec<RowInput>> {
        if text.get().starts_with('{') {
            let map: BTreeMap<String, Box<RawValue>> =
                serde_json::from_str(text.get()).map_err(unreadable)?;
            return Ok(map
                .into_iter()
                .map(|(name, data)| RowInput { name, dtype: None, shape: None, data })
                .collect());
        }
        let list: Vec<LongTensor> = serde_json::from_str(text.get()).map_err(unreadable)?;
        list.into_iter()
            .map(|tensor| {
                let dtype = Dtype::from_name(&tensor.datatype)
                    .ok_or_else(|| bad(format!("{:?} is no datatype", tensor.datatype)))?;
                let (dtype, shape) = (Some(dtype), Some(tensor.shape));
                Ok(RowInput { name: tensor.name, dtype, shape, data: tensor.data })
            })
            .collect()
    };
    Ok(GoldenRow {
        line: number,
        name: row.name,
        tolerance: row.tolerance,
        inputs: tensors(&row.inputs)?,
        outputs: tensors(&row.outputs)?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_both_forms() {
        let rows = parse_golden(
            br#"{"name": "a", "inputs": {"X": [[1, 2]]}, "outputs": {"y": [3]}, "tolerance": {"absolute": 0.1}}

{"inputs": [{"name": "X", "datatype": "FP32", "shape": [1, 2], "data": [1, 2]}], "outputs": []}
"#,
            10,
        )
        .expect("readable");
        assert_eq!(rows.len(), 2);
        assert_eq!(rows[0].inputs[0].tensor(Dtype::Fp32).expect("a tensor").shape(), [1, 2]);
        assert_eq!(rows[1].line, 3);
        assert_eq!(
            rows[0].inputs[0].tensor(Dtype::Fp32).expect("short"),
            rows[1].inputs[0].tensor(Dtype::Int8).expect("long")
        );
    }

    #[test]
    fn refuses_with_the_line() {
        for text in
            ["{}", "[1]", "{\"inputs\": {}, \"outputs\": {}, \"more\": 1}", "nonsense", "{\"inputs\": 1}"]
        {
            let error = parse_golden(format!("\n{text}").as_bytes(), 10).expect_err(text);
            assert_eq!(error.code(), Code::BadGolden);
            assert!(error.text().contains("line 2"), "{error}");
        }
        assert!(parse_golden("{\"inputs\":{},\"outputs\":{}}\n".repeat(3).as_bytes(), 2).is_err());
    }
}
