//! A model under comparison: loaded, run over the holdout, timed.

use std::sync::OnceLock;
use std::time::{Duration, Instant};

use baton_runner::config::Limits;
use baton_runner::engine::{EngineOptions, Engines, RunControl, Signature};
use baton_runner::tensor::{Dtype, Elements, Tensor};

use super::holdout::{Holdout, canonical};
use super::metric::{Answers, Metrics, figures};
use super::rule::{Reason, Rule};
use crate::function::Failure;

/// Figures of one model.
pub(super) type Measured = Metrics;

/// Rows that go into one run.
const BATCH: usize = 256;
/// Of one run.
const RUN_TIME: Duration = Duration::from_secs(30);
/// Rows that are timed one by one.
const TIMED: usize = 50;

/// Runs candidate and active model over the holdout and judges. A candidate that cannot be run is a reason to refuse it; an active
/// model that cannot (it serves another task) is left out of the comparison.
///
/// # Errors
/// [`Failure::Later`] if this machine lacks the engine.
pub(super) fn measure_both(
    candidate: &[u8],
    active: Option<&[u8]>,
    holdout: &Holdout,
    rule: &Rule,
) -> Result<(Measured, Option<Measured>, Vec<Reason>), Failure> {
    // ONNX Runtime is loaded once a process.
    static ENGINES: OnceLock<Engines> = OnceLock::new();
    let limits = Limits::default();
    let engines = ENGINES.get_or_init(|| Engines::for_server(None, false, &limits));
    let theirs = active.and_then(|bytes| match measure(engines, bytes, holdout, rule, &limits) {
        Ok(measured) => Some(measured),
        Err(error) => {
            tracing::warn!("the active model is left out of the comparison: {error}");
            None
        }
    });
    match measure(engines, candidate, holdout, rule, &limits) {
        Ok(ours) => {
            let reasons = rule.judge(&ours, theirs.as_ref());
            Ok((ours, theirs, reasons))
        }
        Err(Unfit::NoEngine(text)) => Err(Failure::Later(text)),
        Err(Unfit::Model(code, text)) => {
            let nothing = Metrics { values: Default::default(), rows: 0, latency_ms: 0.0 };
            Ok((nothing, theirs, vec![Reason { code, text }]))
        }
    }
}

/// Why a model could not be measured.
#[derive(Debug, thiserror::Error)]
enum Unfit {
    #[error("{0}")]
    NoEngine(String),
    #[error("{1} ({0})")]
    Model(String, String),
}

impl From<baton_runner::error::Error> for Unfit {
    fn from(error: baton_runner::error::Error) -> Self {
        match error.code() {
            baton_runner::error::Code::OnnxUnavailable => Unfit::NoEngine(error.text().to_owned()),
            code => Unfit::Model(code.id().to_owned(), error.text().to_owned()),
        }
    }
}

fn measure(
    engines: &Engines,
    artifact: &[u8],
    holdout: &Holdout,
    rule: &Rule,
    limits: &Limits,
) -> Result<Measured, Unfit> {
    let unfit = |text: String| Unfit::Model("HOLDOUT_UNFIT".into(), text);
    let instance = engines.prepare(artifact.to_vec(), &EngineOptions::default())?;
    let mapping = holdout.fit(instance.signature()).map_err(unfit)?;
    let output = Output::of(instance.signature(), rule).map_err(unfit)?;
    let batch = match mapping.batch() {
        None => BATCH,
        Some(1) => 1,
        Some(rows) => return Err(unfit(format!("the model takes exactly {rows} rows at a time"))),
    };
    let run = |inputs: &[Tensor]| -> Result<Vec<Tensor>, Unfit> {
        let control = RunControl {
            deadline: Instant::now() + RUN_TIME,
            cancelled: None,
            output_bytes: limits.tensor_bytes,
        };
        Ok(instance.run(inputs, &output.positions, &control)?)
    };
    let mut collected = Collected::default();
    let mut first = 0;
    while first < holdout.len() {
        let rows = first..(first + batch).min(holdout.len());
        let truth = &holdout.truth[rows.clone()];
        first = rows.end;
        let inputs = holdout.tensors(&mapping, rows).map_err(unfit)?;
        collected.add(&output, &run(&inputs)?, truth).map_err(unfit)?;
    }
    let mut times: Vec<f64> = Vec::new();
    for row in 0..holdout.len().min(TIMED) {
        let inputs = holdout.tensors(&mapping, row..row + 1).map_err(unfit)?;
        let started = Instant::now();
        run(&inputs)?;
        times.push(started.elapsed().as_secs_f64() * 1e3);
    }
    times.sort_by(f64::total_cmp);
    let latency_ms = times.get(times.len() / 2).copied().unwrap_or(0.0);
    let values = figures(&holdout.truth, &collected.answers(&output));
    Ok(Metrics { values, rows: holdout.len(), latency_ms })
}

/// Which outputs say what.
struct Output {
    /// Those to ask for.
    positions: Vec<usize>,
    form: Form,
    /// The classes of the probabilities' columns.
    classes: Option<Vec<String>>,
}

enum Form {
    /// The first is the class; the second, if asked for, probabilities.
    Label,
    /// Probabilities or scores; the largest is the class.
    Scores,
    Number,
}

impl Output {
    /// Finds the prediction: the rule's output, else an output of integers or texts, else floats.
    fn of(signature: &Signature, rule: &Rule) -> Result<Self, String> {
        let outputs = &signature.outputs;
        let is_float = |dtype| matches!(dtype, Dtype::Fp16 | Dtype::Bf16 | Dtype::Fp32 | Dtype::Fp64);
        let names = || outputs.iter().map(|output| output.name.as_str()).collect::<Vec<_>>();
        let chosen = match &rule.output {
            Some(name) => Some(
                outputs
                    .iter()
                    .position(|output| output.name == *name)
                    .ok_or_else(|| format!("the model has no output {name:?}; it has {:?}", names()))?,
            ),
            None if rule.metric.is_regression() => None,
            None => outputs.iter().position(|output| !is_float(output.dtype)),
        };
        let chosen = match chosen {
            Some(position) => position,
            None => outputs
                .iter()
                .position(|output| is_float(output.dtype))
                .ok_or_else(|| format!("none of the outputs {:?} can be a prediction", names()))?,
        };
        let classes = |position: usize| outputs[position].labels.clone();
        if rule.metric.is_regression() {
            return Ok(Self { positions: vec![chosen], form: Form::Number, classes: None });
        }
        if is_float(outputs[chosen].dtype) {
            return Ok(Self { positions: vec![chosen], form: Form::Scores, classes: classes(chosen) });
        }
        let wide = |output: &baton_runner::engine::TensorSpec| {
            is_float(output.dtype) && output.shape.as_ref().is_none_or(|dims| dims.len() == 2)
        };
        let scores = outputs.iter().position(wide);
        let positions = std::iter::once(chosen).chain(scores).collect();
        Ok(Self { positions, form: Form::Label, classes: scores.and_then(classes) })
    }
}

/// Answers of all batches so far.
#[derive(Default)]
struct Collected {
    labels: Vec<String>,
    right: Vec<f64>,
    numbers: Vec<f64>,
}

impl Collected {
    fn add(&mut self, output: &Output, tensors: &[Tensor], truth: &[String]) -> Result<(), String> {
        let rows = truth.len();
        let cells = |tensor: &Tensor| -> Result<Vec<String>, String> {
            let cells = cells(tensor)?;
            if cells.len() % rows != 0 || cells.len() < rows {
                return Err(format!("{rows} rows gave {} values", cells.len()));
            }
            Ok(cells)
        };
        let numbers = |cells: Vec<String>| -> Vec<f64> {
            cells.iter().map(|cell| cell.trim_matches('"').parse().unwrap_or(f64::NAN)).collect()
        };
        let Some(first) = tensors.first() else { return Err("the model gave no output".into()) };
        match output.form {
            Form::Number => {
                let values = numbers(cells(first)?);
                if values.len() != rows {
                    return Err(format!("{rows} rows gave {} numbers, not one each", values.len()));
                }
                self.numbers.extend(values);
            }
            Form::Label => {
                let labels = cells(first)?;
                if labels.len() != rows {
                    return Err(format!("{rows} rows gave {} labels, not one each", labels.len()));
                }
                self.labels.extend(labels.iter().map(|label| canonical(label)));
                if let Some(scores) = tensors.get(1) {
                    let scores = numbers(cells(scores)?);
                    self.add_right(output, &scores, truth);
                }
            }
            Form::Scores => {
                let scores = numbers(cells(first)?);
                let width = scores.len() / rows;
                for row in scores.chunks(width) {
                    let best = if width == 1 {
                        usize::from(row[0] > 0.5)
                    } else {
                        row.iter()
                            .enumerate()
                            .fold(0, |best, (at, value)| if *value > row[best] { at } else { best })
                    };
                    self.labels.push(class(output, best));
                }
                self.add_right(output, &scores, truth);
            }
        }
        Ok(())
    }

    /// The probability of the right class, for rows whose classes are known and whose values are probabilities.
    fn add_right(&mut self, output: &Output, scores: &[f64], truth: &[String]) {
        let width = scores.len() / truth.len();
        if width < 2 {
            return;
        }
        for (row, truth) in scores.chunks(width).zip(truth) {
            let is_distribution = row.iter().all(|value| (0.0..=1.0).contains(value))
                && (row.iter().sum::<f64>() - 1.0).abs() < 1e-3;
            let at = (0..width).find(|at| class(output, *at) == *truth);
            if let (true, Some(at)) = (is_distribution, at) {
                self.right.push(row[at]);
            }
        }
    }

    fn answers(self, output: &Output) -> Answers {
        match output.form {
            Form::Number => Answers::Numbers(self.numbers),
            Form::Label | Form::Scores => {
                // Some rows without: the mean would be of others than the accuracy's.
                let right = (self.right.len() == self.labels.len()).then_some(self.right);
                Answers::Classes { labels: self.labels, right }
            }
        }
    }
}

/// The class of a column: as the model names it, else its number from 0.
fn class(output: &Output, column: usize) -> String {
    match output.classes.as_ref().and_then(|classes| classes.get(column)) {
        Some(name) => canonical(name),
        None => column.to_string(),
    }
}

/// The elements as text, in row-major order.
fn cells(tensor: &Tensor) -> Result<Vec<String>, String> {
    if let Elements::Text(elements) = tensor.elements() {
        return Ok(elements.iter().map(|element| String::from_utf8_lossy(element).into_owned()).collect());
    }
    let mut text = Vec::new();
    baton_runner::tensor::json::write(tensor, &mut text).map_err(|error| error.to_string())?;
    let text = String::from_utf8_lossy(&text);
    let values: Vec<serde_json::Value> =
        serde_json::from_str(&baton_runner::tensor::json::quote_non_finite(&text))
            .map_err(|error| format!("an output is no list of values: {error}"))?;
    Ok(values.iter().map(ToString::to_string).collect())
}
