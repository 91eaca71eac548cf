//! The isolation forest that a trainer left beside its model, run with the runtime that the runner has anyway.
//!
//! As scikit-learn's forests are exported by skl2onnx: one input of shape [rows, columns] or one of shape [rows, 1] a
//! column, an output of whole numbers (-1 for an outlier) and one of floats (below 0 for an outlier).

use std::sync::OnceLock;
use std::time::{Duration, Instant};

use baton_data::{Forest, ForestAnswer, Matrix};
use baton_runner::bundle::{EngineKind, Execution};
use baton_runner::config::Limits;
use baton_runner::engine::{EngineOptions, Engines, Instance, RunControl, TensorSpec};
use baton_runner::tensor::{Dim, Dtype, Elements, Tensor};

/// Rows of one run: bounds the memory.
const ROWS: usize = 8192;
/// For all rows.
const TIME: Duration = Duration::from_secs(120);

/// ONNX Runtime is loaded once a process.
static ENGINES: OnceLock<Engines> = OnceLock::new();

/// A loaded forest.
pub(super) struct OnnxForest {
    instance: Box<dyn Instance>,
}

impl OnnxForest {
    /// Loads it.
    ///
    /// # Errors
    /// It is no ONNX model that can be run, or there is no runtime; in words.
    pub(super) fn load(artifact: Vec<u8>) -> Result<Self, String> {
        if EngineKind::of(&artifact) != EngineKind::Onnx {
            return Err("it is no ONNX model".to_owned());
        }
        let engines = ENGINES.get_or_init(|| Engines::for_server(None, false, &Limits::default()));
        let options = EngineOptions {
            model: "outlier".to_owned(),
            execution: Some(Execution::InProcess),
            ..EngineOptions::default()
        };
        let instance = engines.prepare(artifact, &options).map_err(|error| error.to_string())?;
        Ok(Self { instance })
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
        if let [spec] = specs.as_slice() {
            if let Some([_, Dim::Fixed(width)]) = spec.shape.as_deref()
                && *width != matrix.names.len() as i64
            {
                let count = matrix.names.len();
                return Err(format!(
                    "it takes {width} columns, the data has {count} of numbers: {}",
                    names()
                ));
            }
            let all: Vec<usize> = (0..matrix.names.len()).collect();
            return Ok(vec![tensor(spec, &all)?]);
        }
        let column = |spec: &TensorSpec| {
            let found = matrix.names.iter().position(|name| *name == spec.name);
            found.ok_or_else(|| format!("it takes a column {:?}, the data has {}", spec.name, names()))
        };
        specs.iter().map(|spec| tensor(spec, &[column(spec)?])).collect()
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
