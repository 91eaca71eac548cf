//! The isolation forest that a trainer left beside its model, run with the runtime that the runner has anyway.
//!
//! As scikit-learn's forests are exported by skl2onnx: one input of shape [rows, columns] or one of shape [rows, 1] a
//! column, an output of whole numbers (-1 for an outlier) and one of floats (below 0 for an outlier).
//!
//! Columns are picked by name wherever names are known: those of the inputs, or the file's `baton.outlier.columns`, or the
//! columns of numbers of the data that the model was trained on. Only a forest about which nothing is known takes all columns
//! by their places.

use std::sync::OnceLock;
use std::time::{Duration, Instant};

use baton_data::{Forest, ForestAnswer, Matrix};
use baton_runner::bundle::{EngineKind, Execution};
use baton_runner::config::Limits;
use baton_runner::engine::{EngineOptions, Engines, Instance, RunControl, TensorSpec};
use baton_runner::tensor::{Dim, Dtype, Elements, Tensor};
use prost_reflect::prost::encoding::decode_varint;

/// Rows of one run: bounds the memory.
const ROWS: usize = 8192;
/// For all rows.
const TIME: Duration = Duration::from_secs(120);

/// ONNX Runtime is loaded once a process.
static ENGINES: OnceLock<Engines> = OnceLock::new();

/// A loaded forest.
pub(super) struct OnnxForest {
    instance: Box<dyn Instance>,
    /// The columns of its one input, if they are known.
    columns: Option<Vec<String>>,
}

/// The entry of the file's metadata with the names of the columns, a JSON list.
const COLUMNS: &str = "baton.outlier.columns";

impl OnnxForest {
    /// Loads it. `trained_on`: the columns of numbers, in their order, of the data that it was fitted on, if they are known.
    ///
    /// # Errors
    /// It is no ONNX model that can be run, or there is no runtime; in words.
    pub(super) fn load(artifact: Vec<u8>, trained_on: Option<Vec<String>>) -> Result<Self, String> {
        if EngineKind::of(&artifact) != EngineKind::Onnx {
            return Err("it is no ONNX model".to_owned());
        }
        let columns = named_columns(&artifact).or(trained_on);
        let engines = ENGINES.get_or_init(|| Engines::for_server(None, false, &Limits::default()));
        let options = EngineOptions {
            model: "outlier".to_owned(),
            execution: Some(Execution::InProcess),
            ..EngineOptions::default()
        };
        let instance = engines.prepare(artifact, &options).map_err(|error| error.to_string())?;
        Ok(Self { instance, columns })
    }

    /// The inputs for rows `from..to`, in the model's order.
    fn inputs(&self, matrix: &Matrix, from: usize, to: usize) -> Result<Vec<Tensor>, String> {
        let specs = &self.instance.signature().inputs;
        let tensor = |spec: &TensorSpec, columns: &[usize]| {
            let values =
                (from..to).flat_map(|row| columns.iter().map(move |column| matrix.row(row)[*column]));
            let bytes: Vec<u8> = match spec.dtype {
                Dtype::Fp32 => values.flat_map(|value| (value as f32).to_le_bytes()).collect(),
                Dtype::Fp64 => values.flat_map(f64::to_le_bytes).collect(),
                other => return Err(format!("its input {:?} takes {other}, not numbers", spec.name)),
            };
            let shape = vec![(to - from) as i64, columns.len() as i64];
            Tensor::raw(spec.dtype, shape, bytes.into()).map_err(|error| error.to_string())
        };
        let names = || matrix.names.join(", ");
        let column = |name: &String| {
            let found = matrix.names.iter().position(|known| known == name);
            found.ok_or_else(|| format!("it takes a column {name:?}, the data has {} of numbers", names()))
        };
        if let [spec] = specs.as_slice() {
            let picked: Vec<usize> = match &self.columns {
                Some(columns) => columns.iter().map(column).collect::<Result<_, _>>()?,
                None => (0..matrix.names.len()).collect(),
            };
            if let Some([_, Dim::Fixed(width)]) = spec.shape.as_deref()
                && *width != picked.len() as i64
            {
                let (count, known) = (picked.len(), self.columns.is_some());
                let whose = if known { "the data of its training had" } else { "the data has" };
                return Err(format!("it takes {width} columns, {whose} {count} of numbers: {}", names()));
            }
            return Ok(vec![tensor(spec, &picked)?]);
        }
        specs.iter().map(|spec| tensor(spec, &[column(&spec.name)?])).collect()
    }
}

impl Forest for OnnxForest {
    fn judge(&self, matrix: &Matrix) -> Result<ForestAnswer, String> {
        let outputs = &self.instance.signature().outputs;
        let of = |is: fn(Dtype) -> bool| outputs.iter().position(|output| is(output.dtype));
        let labels = of(|dtype| dtype == Dtype::Int64).ok_or("it has no output of labels (INT64)")?;
        let scores =
            of(|dtype| matches!(dtype, Dtype::Fp32 | Dtype::Fp64)).ok_or("it has no output of scores")?;
        let control =
            RunControl { deadline: Instant::now() + TIME, cancelled: None, output_bytes: 64 * ROWS };
        let mut answer = ForestAnswer { outlier: Vec::new(), scores: Vec::new() };
        for from in (0..matrix.rows).step_by(ROWS) {
            let to = (from + ROWS).min(matrix.rows);
            let inputs = self.inputs(matrix, from, to)?;
            let found =
                self.instance.run(&inputs, &[labels, scores], &control).map_err(|error| error.to_string())?;
            let [labels, scores] = found.as_slice() else { return Err("it gave no answer".to_owned()) };
            answer.outlier.extend(numbers(labels).into_iter().map(|label| label < 0.0));
            // Higher is more unlike, here.
            answer.scores.extend(numbers(scores).into_iter().map(|score| -score));
        }
        match answer.scores.iter().all(|score| score.is_finite()) {
            true => Ok(answer),
            false => Err("it gave scores that are no numbers".to_owned()),
        }
    }
}

/// What the file's metadata says of its columns.
fn named_columns(artifact: &[u8]) -> Option<Vec<String>> {
    // ModelProto.metadata_props; a StringStringEntryProto is {key = 1, value = 2}.
    let entries = fields(artifact).filter(|(number, _)| *number == 14);
    let value = entries.map(|(_, entry)| fields(entry)).find_map(|entry| {
        let parts: Vec<(u64, &[u8])> = entry.collect();
        let part = |wanted| parts.iter().find(|(number, _)| *number == wanted).map(|(_, bytes)| *bytes);
        (part(1) == Some(COLUMNS.as_bytes())).then(|| part(2)).flatten()
    })?;
    serde_json::from_slice(value).ok()
}

/// The fields of a protobuf message that hold bytes, as far as it can be read.
fn fields(message: &[u8]) -> impl Iterator<Item = (u64, &[u8])> {
    let mut rest = message;
    let next = move || -> Option<(u64, Option<&[u8]>)> {
        let tag = decode_varint(&mut rest).ok()?;
        let length = match tag & 7 {
            0 => {
                decode_varint(&mut rest).ok()?;
                return Some((tag >> 3, None));
            }
            1 => 8,
            2 => usize::try_from(decode_varint(&mut rest).ok()?).ok()?,
            5 => 4,
            _ => return None,
        };
        let (bytes, after) = rest.split_at_checked(length)?;
        rest = after;
        Some((tag >> 3, (tag & 7 == 2).then_some(bytes)))
    };
    std::iter::from_fn(next).filter_map(|(number, bytes)| Some((number, bytes?)))
}

/// The elements of a tensor of 64-bit integers or floats.
fn numbers(tensor: &Tensor) -> Vec<f64> {
    let Elements::Raw(bytes) = tensor.elements() else { return Vec::new() };
    let eight = |bytes: &[u8]| bytes.try_into().unwrap_or([0; 8]);
    match tensor.dtype() {
        Dtype::Int64 => bytes.chunks_exact(8).map(|bytes| i64::from_le_bytes(eight(bytes)) as f64).collect(),
        Dtype::Fp64 => bytes.chunks_exact(8).map(|bytes| f64::from_le_bytes(eight(bytes))).collect(),
        Dtype::Fp32 => bytes
            .chunks_exact(4)
            .map(|bytes| f32::from_le_bytes(bytes.try_into().unwrap_or([0; 4])).into())
            .collect(),
        _ => Vec::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_files_metadata_name_the_columns() {
        let entry = |key: &str, value: &str| {
            let parts = [(0x0a, key), (0x12, value)];
            let entry: Vec<u8> = parts
                .iter()
                .flat_map(|(tag, text)| [&[*tag, text.len() as u8], text.as_bytes()].concat())
                .collect();
            [&[0x72, entry.len() as u8], entry.as_slice()].concat()
        };
        // ir_version = 10, then the entries.
        let of = |value: &str| [vec![0x08, 0x0a], entry("other", "1"), entry(COLUMNS, value)].concat();
        assert_eq!(named_columns(&of("[\"b\", \"a\"]")), Some(vec!["b".to_owned(), "a".to_owned()]));
        assert_eq!(named_columns(&of("nonsense")), None);
        assert_eq!(named_columns(&of("[\"b\"]")[..20]), None, "cut off");
        assert_eq!(named_columns(b""), None);
    }
}
