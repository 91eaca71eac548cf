//! Creates sessions from bytes and describes their inputs and outputs.
//!
//! A model is loaded from memory, never from a path: external data then has no folder to be relative to, and
//! [`inspect`] has refused it before anyway.

use std::ffi::CString;
use std::ptr::NonNull;
use std::sync::mpsc;
use std::time::Duration;

use ort::AsPointer;
use ort::ep;
use ort::session::Session;
use ort::session::builder::LoadCanceler;
use ort::value::{TensorElementType, ValueType};

use super::inspect::{ClassLabels, InspectError, Inspection, inspect};
use super::run::Runner;
use super::runtime::OnnxRuntime;
use crate::engine::{EngineOptions, Instance, RunControl, Signature, TensorSpec};
use crate::error::{Code, Error, Result};
use crate::tensor::{Dim, Dtype, Tensor};

impl OnnxRuntime {
    /// Checks an artifact without loading it.
    ///
    /// # Errors
    /// What is wrong with it.
    pub(in crate::engine) fn check(&self, artifact: &[u8]) -> Result<()> {
        inspect(artifact, &self.inspect_limits).map(|_| ()).map_err(refusal)
    }

    /// Checks an artifact and loads it.
    ///
    /// # Errors
    /// What is wrong with it, or why ONNX Runtime does not take it.
    pub(in crate::engine) fn prepare(
        &self,
        artifact: &[u8],
        options: &EngineOptions,
    ) -> Result<Box<dyn Instance>> {
        let inspection = inspect(artifact, &self.inspect_limits).map_err(refusal)?;
        let bytes = inspection.rewritten.as_deref().unwrap_or(artifact);
        let session = self.session(bytes, options)?;
        Ok(Box::new(OnnxInstance::new(session, &inspection)?))
    }

    fn session(&self, model: &[u8], options: &EngineOptions) -> Result<Session> {
        let refused = |error: ort::Error| load_failure(&error, self.version());
        let mut builder = Session::builder(&self.environment)
            .and_then(|builder| {
                // The arena keeps the largest request's memory for the life of the session; the heap gives it back.
                let cpu = ep::CPU::default().with_arena_allocator(false).build();
                builder.with_execution_providers([cpu]).map_err(Into::into)
            })
            .map_err(refused)?;
        if options.intra_threads > 1 {
            builder = builder
                .with_independent_thread_pool()
                .map_err(ort::Error::from)
                .and_then(|builder| Ok(builder.with_intra_threads(options.intra_threads)?))
                .and_then(|builder| Ok(builder.with_intra_op_spinning(false)?))
                .map_err(refused)?;
        }
        let timer = LoadTimer::start(builder.canceler(), options.load_time);
        let session = builder.commit_from_memory(model);
        if timer.stop() {
            let seconds = options.load_time.as_secs();
            return Err(Error::new(
                Code::PrepareDeadline,
                format!("loading the model took more than {seconds} s"),
            ));
        }
        session.map_err(refused)
    }
}

/// Cancels a load that takes too long.
struct LoadTimer {
    done: mpsc::Sender<()>,
    thread: Option<std::thread::JoinHandle<bool>>,
}

impl LoadTimer {
    fn start(canceler: LoadCanceler, time: Duration) -> Self {
        let (done, waiting) = mpsc::channel();
        let thread = std::thread::Builder::new().name("baton-load-timer".to_owned()).spawn(move || {
            let expired = matches!(waiting.recv_timeout(time), Err(mpsc::RecvTimeoutError::Timeout));
            if expired && let Err(error) = canceler.cancel() {
                tracing::warn!("cannot cancel a load: {error}");
            }
            expired
        });
        Self { done, thread: thread.ok() }
    }

    /// Did the time run out?
    fn stop(self) -> bool {
        drop(self.done);
        self.thread.and_then(|thread| thread.join().ok()).unwrap_or(false)
    }
}

/// A session of the CPU provider.
struct OnnxInstance {
    session: Session,
    runner: Runner,
    signature: Signature,
}

impl OnnxInstance {
    fn new(session: Session, inspection: &Inspection) -> Result<Self> {
        let specs = |outlets: &[ort::value::Outlet]| -> Result<Vec<TensorSpec>> {
            outlets.iter().map(|outlet| spec(outlet.name(), outlet.dtype(), inspection)).collect()
        };
        let signature = Signature { inputs: specs(session.inputs())?, outputs: specs(session.outputs())? };
        let names = |specs: &[TensorSpec]| -> Result<Vec<CString>> {
            let named = |spec: &TensorSpec| {
                CString::new(spec.name.as_str())
                    .map_err(|_| Error::new(Code::ModelUnsupported, "a tensor's name holds a NUL character"))
            };
            specs.iter().map(named).collect()
        };
        let runner =
            Runner::new(names(&signature.inputs)?, names(&signature.outputs)?).map_err(|failure| {
                Error::new(Code::Internal, "cannot set up the model's runner").caused_by(failure)
            })?;
        Ok(Self { session, runner, signature })
    }
}

impl Instance for OnnxInstance {
    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn platform(&self) -> &'static str {
        "onnxruntime_onnx"
    }

    fn run(&self, inputs: &[Tensor], outputs: &[usize], control: &RunControl) -> Result<Vec<Tensor>> {
        let session = NonNull::new(self.session.ptr().cast_mut())
            .ok_or_else(|| Error::new(Code::Internal, "the session is gone"))?;
        // SAFETY: `self.session` lives through the call and has only the CPU provider; the runner was made from its
        // own input and output names.
        unsafe { self.runner.run(session, inputs, outputs, control) }
    }
}

fn spec(name: &str, value: &ValueType, inspection: &Inspection) -> Result<TensorSpec> {
    let ValueType::Tensor { ty, shape, dimension_symbols } = value else {
        return Err(Error::new(
            Code::ModelUnsupported,
            format!("{name:?} is no tensor; only tensors can be served"),
        ));
    };
    let dtype = dtype_of(*ty).ok_or_else(|| {
        Error::new(
            Code::ModelUnsupported,
            format!("{name:?} has element type {ty}, which the protocol does not know"),
        )
    })?;
    let dims = shape
        .iter()
        .zip(dimension_symbols.iter())
        .map(|(size, symbol)| match size {
            0.. => Dim::Fixed(*size),
            _ => Dim::Any(Some(symbol.to_string()).filter(|symbol| !symbol.is_empty())),
        })
        .collect();
    let labels =
        inspection.class_labels.iter().find(|(output, _)| output == name).map(|(_, labels)| match labels {
            ClassLabels::Int64(labels) => labels.iter().map(i64::to_string).collect(),
            ClassLabels::Text(labels) => labels.clone(),
        });
    // A value whose type says nothing about its shape looks like a scalar in ONNX Runtime's answer; only the model's
    // own bytes tell the two apart.
    let declared = inspection.inputs.iter().chain(&inspection.outputs).find(|value| value.name == name);
    let unranked = shape.is_empty() && declared.is_some_and(|value| value.shape.is_none());
    Ok(TensorSpec { name: name.to_owned(), dtype, shape: (!unranked).then_some(dims), labels })
}

fn dtype_of(element: TensorElementType) -> Option<Dtype> {
    Some(match element {
        TensorElementType::Bool => Dtype::Bool,
        TensorElementType::Uint8 => Dtype::Uint8,
        TensorElementType::Uint16 => Dtype::Uint16,
        TensorElementType::Uint32 => Dtype::Uint32,
        TensorElementType::Uint64 => Dtype::Uint64,
        TensorElementType::Int8 => Dtype::Int8,
        TensorElementType::Int16 => Dtype::Int16,
        TensorElementType::Int32 => Dtype::Int32,
        TensorElementType::Int64 => Dtype::Int64,
        TensorElementType::Float16 => Dtype::Fp16,
        TensorElementType::Bfloat16 => Dtype::Bf16,
        TensorElementType::Float32 => Dtype::Fp32,
        TensorElementType::Float64 => Dtype::Fp64,
        TensorElementType::String => Dtype::Bytes,
        _ => return None,
    })
}

fn refusal(error: InspectError) -> Error {
    let code = match &error {
        InspectError::Empty => Code::UploadEmpty,
        InspectError::WrongFormat { .. } => Code::WrongFormat,
        InspectError::ExternalData { .. } => Code::ExternalData,
        InspectError::TooDeep { .. } => Code::ModelTooDeep,
        InspectError::FunctionCycle { .. } => Code::ModelCycle,
        InspectError::UnsupportedValue { .. } => Code::ModelUnsupported,
        InspectError::Malformed { .. } | InspectError::BadTensor { .. } | InspectError::TooMany { .. } => {
            Code::ModelRefused
        }
    };
    Error::new(code, error.to_string())
}

/// Why ONNX Runtime refused to load a model, in our words; its own go to the log.
fn load_failure(error: &ort::Error, version: &str) -> Error {
    let message = error.to_string();
    let reason = if let Some(locale) = between(&message, "locale with name:", ":") {
        format!(
            "it needs the locale {locale}, which this machine lacks (Debian: apt-get install locales-all)"
        )
    } else if let Some(operator) = between(&message, "No Op registered for ", " with") {
        format!("it uses operator {operator}, which ONNX Runtime {version} does not know in that opset")
    } else if let Some(operator) = between(&message, "is not a registered function/op", "") {
        format!("it uses an operator that ONNX Runtime {version} does not know{operator}")
    } else if message.contains("opset") && message.contains("support") {
        format!("it needs an opset or IR version that ONNX Runtime {version} does not support")
    } else if let Some(node) = between(&message, "Node (", ")") {
        format!("its node {node:?} does not fit its inputs")
    } else if message.contains("NOT_IMPLEMENTED") || message.contains("Could not find an implementation") {
        match between(&message, "Could not find an implementation for ", " node") {
            Some(operator) => format!("ONNX Runtime {version} has no CPU implementation of {operator}"),
            None => format!("ONNX Runtime {version} has no CPU implementation of one of its operators"),
        }
    } else {
        format!("ONNX Runtime {version} refused it as invalid")
    };
    Error::new(Code::ModelRefused, format!("the model cannot be loaded: {reason}")).caused_by(message)
}

fn between<'a>(text: &'a str, start: &str, end: &str) -> Option<&'a str> {
    let (_, rest) = text.split_once(start)?;
    if end.is_empty() { Some("") } else { rest.split_once(end).map(|(inner, _)| inner) }
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::*;
    use crate::config::Limits;

    fn prepared() -> Box<dyn Instance> {
        // Test binaries lie one folder deeper than the product, so the checkout's copy is named.
        let fetched = concat!(env!("CARGO_MANIFEST_DIR"), "/../.cache/onnxruntime/libonnxruntime.so.1.31.1");
        let library =
            std::env::var_os("ORT_DYLIB_PATH").map_or_else(|| fetched.into(), std::path::PathBuf::from);
        let runtime = OnnxRuntime::load(&library, &Limits::default())
            .expect("`make onnxruntime` fetches ONNX Runtime for the tests");
        let model = include_bytes!("../../../../sample-models/iris/v2/model.onnx");
        runtime.prepare(model, &EngineOptions::default()).expect("the sample model loads")
    }

    fn rows(seed: usize, count: usize) -> Tensor {
        let value = |index: usize| ((index * 7 + seed * 13) % 80) as f32 / 10.0;
        let bytes: Vec<u8> = (0..count * 4).flat_map(|index| value(index).to_le_bytes()).collect();
        Tensor::raw(Dtype::Fp32, vec![count as i64, 4], bytes.into()).expect("a tensor")
    }

    #[test]
    fn concurrent_runs_agree() {
        let instance = prepared();
        let control = || RunControl {
            deadline: Instant::now() + Duration::from_secs(60),
            cancelled: None,
            output_bytes: 1 << 20,
        };
        let outputs: Vec<usize> = (0..instance.signature().outputs.len()).collect();
        let expected: Vec<Vec<Tensor>> = (0..16)
            .map(|seed| instance.run(&[rows(seed, seed + 1)], &outputs, &control()).expect("a run"))
            .collect();
        std::thread::scope(|scope| {
            for thread in 0..4 {
                let (instance, outputs, expected) = (&instance, &outputs, &expected);
                scope.spawn(move || {
                    for round in 0..5_000 {
                        let seed = (round * 5 + thread * 3) % expected.len();
                        let got = instance.run(&[rows(seed, seed + 1)], outputs, &control()).expect("a run");
                        assert_eq!(got, expected[seed], "thread {thread}, round {round}");
                    }
                });
            }
        });
    }

    #[test]
    fn unaligned_inputs_give_the_same_answer() {
        let instance = prepared();
        let control = RunControl {
            deadline: Instant::now() + Duration::from_secs(60),
            cancelled: None,
            output_bytes: 1 << 20,
        };
        let aligned = rows(1, 3);
        let crate::tensor::Elements::Raw(bytes) = aligned.elements() else { panic!("numbers") };
        let expected = instance.run(std::slice::from_ref(&aligned), &[0, 1], &control).expect("a run");
        for shift in 1..8 {
            let mut moved = vec![0; shift];
            moved.extend_from_slice(bytes);
            let moved = bytes::Bytes::from(moved).slice(shift..);
            let tensor = Tensor::raw(Dtype::Fp32, vec![3, 4], moved).expect("a tensor");
            assert_eq!(instance.run(&[tensor], &[0, 1], &control).expect("a run"), expected, "shift {shift}");
        }
    }

    #[test]
    fn outputs_beyond_the_limit_are_refused() {
        let instance = prepared();
        let control = RunControl {
            deadline: Instant::now() + Duration::from_secs(60),
            cancelled: None,
            output_bytes: 10,
        };
        let error = instance.run(&[rows(1, 3)], &[1], &control).expect_err("36 bytes");
        assert_eq!(error.code(), Code::OutputTooLarge);
    }
}
