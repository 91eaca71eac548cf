//! From an artifact's bytes to an instance that is loaded, tested and warm. Runs on the loader thread, far from
//! requests; holds no handle to what is being served, so no fault here can touch it.

use std::sync::Arc;
use std::time::{Duration, Instant};

use serde_json::json;

use super::version::Prepared;
use crate::bundle::{GoldenRow, Settings};
use crate::config::Limits;
use crate::contract::{self, Contract, Origin, Schema};
use crate::engine::{EngineOptions, Engines, Instance, Notify, RunControl, trim_heap};
use crate::error::{Code, Error, Result};
use crate::requestlog::Plan;
use crate::store::ModelName;
use crate::telemetry::ModelMetrics;
use crate::tensor::{Tensor, compare};

/// Runs after the first, to measure.
const MEASURED_RUNS: usize = 5;
/// Elements shown of a golden row that differs.
const SHOWN_DIFFERENCES: usize = 5;
/// Rows shown that failed.
const SHOWN_ROWS: usize = 10;

/// What is prepared.
pub(super) struct Candidate<'a> {
    pub model: &'a ModelName,
    pub artifact: Vec<u8>,
    pub contract: Option<Vec<u8>>,
    pub settings: &'a Settings,
    pub golden: &'a [GoldenRow],
    /// What deaths of workers are counted into.
    pub metrics: Option<Arc<ModelMetrics>>,
    /// Told when workers die again and again.
    pub degraded: Option<Notify>,
}

/// Loads the artifact, binds the contract (or makes one), runs every golden row and warms up.
///
/// # Errors
/// The contract's or the engine's refusal, `GOLDEN_FAILED` with the differences, or `PREPARE_DEADLINE`.
pub(super) fn prepare(engines: &Engines, candidate: Candidate<'_>, limits: &Limits) -> Result<Prepared> {
    let deadline = Instant::now() + limits.prepare_time;
    let (settings, golden) = (candidate.settings, candidate.golden);
    let large = candidate.artifact.len() > 1 << 20;
    let Loaded { instance, contract, mut warnings } = load(engines, candidate, limits)?;
    // Whether or not this server keeps a log: what is wrong with the names is wrong everywhere.
    let log_plan = settings.request_log.as_ref();
    let log_plan = log_plan.map(|log| Plan::new(log, instance.signature(), contract.as_ref())).transpose()?;
    let rows = run_golden(instance.as_ref(), golden, settings, limits, deadline)?;
    let warm_inputs = match rows {
        Some(inputs) => Some(inputs),
        None => instance.signature().inputs.iter().map(|spec| spec.synthetic()).collect(),
    };
    let mut run_time = Duration::ZERO;
    let mut run_bytes = 0;
    match warm_inputs {
        Some(inputs) => match warm_up(instance.as_ref(), &inputs, limits) {
            Ok(time) => {
                run_time = time;
                run_bytes = inputs.iter().map(Tensor::byte_len).sum();
            }
            // Whatever the input, a model must not take its process along.
            Err(error)
                if matches!(error.code(), Code::WorkerLost | Code::ModelMemory | Code::ModelOverrun) =>
            {
                return Err(Error::new(
                    Code::PrepareFailed,
                    format!("the model did not survive its warm-up: {}", error.text()),
                ));
            }
            // Zeros of size one are a guess; a model may rightly refuse them.
            Err(error) => {
                // Not known to be fast, so not run inline until it has shown that it is.
                run_time = limits.inline_run * 2;
                warnings.push(format!(
                    "the warm-up with made-up inputs failed ({}); give golden rows to warm up with real ones",
                    error.text()
                ));
            }
        },
        None => warnings.push("an input has no declared rank: not warmed up; give golden rows".to_owned()),
    }
    if large {
        // Parsing leaves up to twice the model's size in freed heap.
        trim_heap();
    }
    Ok(Prepared { instance, contract, log_plan: log_plan.map(Arc::new), run_time, run_bytes, warnings })
}

/// An artifact that is loaded, and the contract that is bound to it.
pub(super) struct Loaded {
    pub instance: Box<dyn Instance>,
    pub contract: Option<Contract>,
    pub warnings: Vec<String>,
}

/// Loads the artifact and binds the contract, or makes one.
///
/// # Errors
/// The contract's or the engine's refusal.
pub(super) fn load(engines: &Engines, candidate: Candidate<'_>, limits: &Limits) -> Result<Loaded> {
    let Candidate { model, artifact, contract, settings, metrics, degraded, .. } = candidate;
    // The cheaper check first.
    let file_name = contract::file_name(model.as_str());
    let schema = contract.map(|source| Schema::compile(&file_name, &source, limits)).transpose()?;
    let options = EngineOptions {
        model: model.to_string(),
        intra_threads: settings.onnx.intra_threads,
        load_time: limits.prepare_time,
        run_time: settings.request_timeout().unwrap_or(limits.request_time).min(limits.request_time),
        execution: settings.execution,
        workers: settings.workers.clone(),
        metrics,
        degraded,
    };
    let instance = engines.prepare(artifact, &options)?;

    let mut warnings = Vec::new();
    let contract = match schema {
        Some(schema) => {
            Some(Contract::bind(schema, Origin::Pushed, instance.signature(), &settings.bind, limits)?)
        }
        None => match Contract::inferred(model.as_str(), instance.signature(), limits) {
            Ok(contract) => Some(contract),
            // The model is served all the same, as tensors.
            Err(error) => {
                warnings.push(format!("no contract could be made for the model: {}", error.text()));
                None
            }
        },
    };
    Ok(Loaded { instance, contract, warnings })
}

/// Runs all rows; returns the inputs of the first for the warm-up.
fn run_golden(
    instance: &dyn Instance,
    rows: &[GoldenRow],
    settings: &Settings,
    limits: &Limits,
    deadline: Instant,
) -> Result<Option<Vec<Tensor>>> {
    let mut first = None;
    let mut failures = Vec::new();
    let mut failed = 0;
    for row in rows {
        if Instant::now() > deadline {
            return Err(Error::new(Code::PrepareDeadline, "the golden rows took too long"));
        }
        match run_row(instance, row, settings, limits, deadline) {
            Ok(inputs) => first = first.or(Some(inputs)),
            Err(report) => {
                failed += 1;
                if failures.len() < SHOWN_ROWS {
                    failures.push(report);
                }
            }
        }
    }
    if failed == 0 {
        return Ok(first);
    }
    let example = failures.first().and_then(|report| report["text"].as_str()).unwrap_or_default().to_owned();
    Err(Error::new(Code::GoldenFailed, format!("{failed} of {} golden rows failed; {example}", rows.len()))
        .with_details(json!({ "failed": failed, "rows": rows.len(), "failures": failures })))
}

/// Runs one row; the report of a failure is JSON with a `text` for people.
fn run_row(
    instance: &dyn Instance,
    row: &GoldenRow,
    settings: &Settings,
    limits: &Limits,
    deadline: Instant,
) -> std::result::Result<Vec<Tensor>, serde_json::Value> {
    let title = match &row.name {
        Some(name) => format!("line {} ({name})", row.line),
        None => format!("line {}", row.line),
    };
    let report = |text: String, differences: Vec<serde_json::Value>| json!({ "line": row.line, "name": row.name, "text": format!("{title}: {text}"), "differences": differences });
    let signature = instance.signature();
    let typed = |name: &str, specs: &[crate::engine::TensorSpec]| {
        specs.iter().find(|spec| spec.name == name).map(|spec| spec.dtype)
    };
    let mut given = Vec::with_capacity(row.inputs.len());
    for input in &row.inputs {
        // An unknown name is reported by `arrange`, with the list of those that exist.
        let dtype = typed(&input.name, &signature.inputs).unwrap_or(crate::tensor::Dtype::Fp32);
        let tensor = input
            .tensor(dtype)
            .map_err(|error| report(format!("input {:?}: {error}", input.name), vec![]))?;
        given.push((input.name.clone(), tensor));
    }
    let inputs = signature.arrange(given).map_err(|error| report(error.text().to_owned(), vec![]))?;
    let names = row.outputs.iter().map(|output| output.name.as_str());
    let positions = signature.select(names).map_err(|error| report(error.text().to_owned(), vec![]))?;
    let control = RunControl { deadline, cancelled: None, output_bytes: limits.tensor_bytes };
    let outputs = instance
        .run(&inputs, &positions, &control)
        .map_err(|error| report(error.text().to_owned(), vec![]))?;
    let tolerance = row.tolerance.unwrap_or(settings.golden);
    let mut differences = Vec::new();
    let mut count = 0;
    for (expected, got) in row.outputs.iter().zip(&outputs) {
        let expected_tensor = expected
            .tensor(got.dtype())
            .map_err(|error| report(format!("output {:?}: {error}", expected.name), vec![]))?;
        let (found, total) = compare(&expected_tensor, got, tolerance, SHOWN_DIFFERENCES);
        count += total;
        differences.extend(found.into_iter().map(|difference| (expected.name.as_str(), difference)));
    }
    let Some((output, first)) = differences.first() else { return Ok(inputs) };
    let text = format!(
        "{count} {} expected, first {output} at {}: expected {}, got {}",
        if count == 1 { "element is not as" } else { "elements are not as" },
        first.position,
        first.expected,
        first.got
    );
    let differences = differences.iter().map(|(output, difference)| {
        json!({
            "output": output,
            "position": difference.position,
            "expected": difference.expected,
            "got": difference.got,
        })
    });
    Err(report(text, differences.collect()))
}

/// The median time of a few runs after a first one, which is up to eight times slower.
fn warm_up(instance: &dyn Instance, inputs: &[Tensor], limits: &Limits) -> Result<Duration> {
    let outputs: Vec<usize> = (0..instance.signature().outputs.len()).collect();
    let run = || -> Result<Duration> {
        let start = Instant::now();
        let control = RunControl {
            deadline: start + limits.warm_up_time,
            cancelled: None,
            output_bytes: limits.tensor_bytes,
        };
        instance.run(inputs, &outputs, &control)?;
        Ok(start.elapsed())
    };
    let first = run()?;
    if first > limits.warm_up_time / MEASURED_RUNS as u32 {
        return Ok(first);
    }
    let mut times = (0..MEASURED_RUNS).map(|_| run()).collect::<Result<Vec<_>>>()?;
    times.sort_unstable();
    Ok(times.get(MEASURED_RUNS / 2).copied().unwrap_or(first))
}
