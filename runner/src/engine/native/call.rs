//! Calls a native model and checks what comes back. The table's rules are in `baton-model-abi`.

use std::ffi::c_void;
use std::sync::{Mutex, PoisonError};

use baton_model_abi::layout::{self, Input, MAX_RANK, Output, Text};
use bytes::Bytes;

use super::arena::Arena;
use super::library::Loaded;
use crate::engine::{Instance, RunControl, Signature, TensorSpec, describe};
use crate::error::{Code, Error, Result};
use crate::tensor::{Dim, Dtype, Tensor, format_shape, matches, raw};

/// Room for the text of a failure.
const TEXT_BYTES: usize = 4 << 10;
/// Room for a description, at first and at most.
const DESCRIPTION_BYTES: [usize; 2] = [16 << 10, 4 << 20];
/// Room for an output of which nothing is known.
const OUTPUT_BYTES: usize = 4 << 10;
/// Times that a model may ask for larger buffers in one run.
const MORE_ROUNDS: usize = 4;
/// Buffers up to this size are kept for the next run.
const KEPT_BYTES: usize = 1 << 20;
/// Sets of buffers that are kept.
const KEPT_ARENAS: usize = 4;
/// What the interface promises of a tensor's address.
const ALIGN: usize = 64;

/// A native model in this process.
pub(super) struct NativeInstance {
    model: Model,
    signature: Signature,
    /// Held by a call to a model that takes one at a time.
    turn: Option<Mutex<()>>,
    arenas: Mutex<Vec<Arena>>,
}

/// What `create` made, with its library. Destroyed when dropped.
struct Model {
    pointer: *mut c_void,
    loaded: Loaded,
}

// SAFETY: the interface lets any thread make any call; `turn` keeps calls apart for a model that wants that.
unsafe impl Send for Model {}
// SAFETY: as for `Send`.
unsafe impl Sync for Model {}

impl Drop for Model {
    fn drop(&mut self) {
        if let Some(destroy) = self.loaded.api().destroy {
            // SAFETY: the pointer that `create` gave, for the last time.
            unsafe { destroy(self.pointer) };
        }
    }
}

impl NativeInstance {
    /// Creates the model of a library and reads its description.
    ///
    /// # Errors
    /// `PREPARE_FAILED`.
    pub(super) fn create(loaded: Loaded) -> Result<Self> {
        let failed = |text: String| Error::new(Code::PrepareFailed, text);
        let is_concurrent = loaded.api().features & layout::CONCURRENT != 0;
        let model = Model::create(loaded)
            .map_err(|failure| failed(format!("the model could not be created: {}", failure.text())))?;
        let description = model.describe().map_err(failed)?;
        let signature = describe::parse(&description)
            .map_err(|reason| failed(format!("the model's description cannot be used: {reason}")))?;
        let turn = (!is_concurrent).then(Mutex::default);
        Ok(Self { model, signature, turn, arenas: Mutex::default() })
    }

    /// Room for the outputs: what their shapes say, with the first input's rows for the first dimension that varies.
    fn expected_sizes(&self, inputs: &[Tensor]) -> Vec<usize> {
        let rows = inputs.first().and_then(|input| input.shape().first()).copied().unwrap_or(1);
        let rows = usize::try_from(rows).unwrap_or(1);
        let bytes = |spec: &TensorSpec| -> Option<usize> {
            let (mut count, mut varies) = (spec.dtype.width()?, false);
            for dim in spec.shape.as_ref()? {
                let size = match dim {
                    Dim::Fixed(size) => usize::try_from(*size).ok()?,
                    Dim::Any(_) if varies => return None,
                    Dim::Any(_) => rows,
                };
                varies |= matches!(dim, Dim::Any(_));
                count = count.checked_mul(size)?;
            }
            Some(count)
        };
        self.signature.outputs.iter().map(|spec| bytes(spec).unwrap_or(OUTPUT_BYTES)).collect()
    }

    fn arena(&self, capacities: &[usize]) -> Result<Arena> {
        let mut kept = self.arenas.lock().unwrap_or_else(PoisonError::into_inner);
        match kept.iter().position(|arena| arena.fits(capacities)) {
            Some(position) => Ok(kept.swap_remove(position)),
            None => {
                drop(kept);
                Arena::new(capacities)
            }
        }
    }

    fn keep(&self, arena: Arena) {
        let mut kept = self.arenas.lock().unwrap_or_else(PoisonError::into_inner);
        if arena.size() <= KEPT_BYTES && kept.len() < KEPT_ARENAS {
            kept.push(arena);
        }
    }

    /// Calls `run` until the buffers are large enough.
    fn call(&self, inputs: &[Tensor], control: &RunControl) -> Result<(Arena, Vec<Output>)> {
        let _turn = self.turn.as_ref().map(|turn| turn.lock().unwrap_or_else(PoisonError::into_inner));
        let given: Vec<Aligned> = inputs.iter().map(Aligned::new).collect();
        let given: Vec<Input> = inputs.iter().zip(&given).map(|(tensor, data)| input(tensor, data)).collect();
        let mut capacities = self.expected_sizes(inputs);
        for _ in 0..=MORE_ROUNDS {
            self.check_sizes(&capacities, control)?;
            let mut arena = self.arena(&capacities)?;
            let mut outputs: Vec<Output> = self
                .signature
                .outputs
                .iter()
                .enumerate()
                .map(|(index, spec)| output(spec, arena.buffer(index)))
                .collect();
            arena.arm();
            let mut text = [0; TEXT_BYTES];
            let (status, text) = self.model.run(&given, &mut outputs, &mut text);
            if let Some(index) = arena.overrun() {
                let (name, capacity) = (self.output_name(index), arena.buffer(index).1);
                return Err(Error::new(
                    Code::ModelOverrun,
                    format!("the model wrote beyond the {capacity} bytes of output {name:?}"),
                ));
            }
            match status {
                layout::STATUS_OK => return Ok((arena, outputs)),
                layout::STATUS_MORE => {
                    let wanted = |output: &Output| usize::try_from(output.size).unwrap_or(usize::MAX);
                    let larger: Vec<usize> = capacities
                        .iter()
                        .zip(&outputs)
                        .map(|(had, output)| wanted(output).max(*had))
                        .collect();
                    if larger == capacities {
                        return broken("the model asks for larger buffers, and names no size that is larger");
                    }
                    capacities = larger;
                    self.keep(arena);
                }
                status => return Err(failure(status, text)),
            }
        }
        broken("the model asks for larger buffers again and again")
    }

    fn check_sizes(&self, capacities: &[usize], control: &RunControl) -> Result<()> {
        let Some(index) = capacities.iter().position(|capacity| *capacity > control.output_bytes) else {
            return Ok(());
        };
        let name = self.output_name(index);
        Err(Error::new(
            Code::OutputTooLarge,
            format!("output {name:?} would have more than {} bytes", control.output_bytes),
        ))
    }

    fn output_name(&self, index: usize) -> &str {
        self.signature.outputs.get(index).map_or("", |spec| &spec.name)
    }

    /// A checked copy of an output.
    fn read(&self, index: usize, output: &Output, arena: &Arena) -> Result<Tensor> {
        let Some(spec) = self.signature.outputs.get(index) else {
            return Err(Error::new(Code::Internal, "an output was asked for that the model does not have"));
        };
        let name = &spec.name;
        let capacity = arena.capacity(index);
        if output.datatype != datatype(spec.dtype) || output.capacity != capacity as u64 {
            return broken(format!("output {name:?} has a datatype or buffer that it was not given"));
        }
        let size = usize::try_from(output.size).ok().filter(|size| *size <= capacity);
        let Some(size) = size else {
            return broken(format!("output {name:?} claims {} bytes in a buffer of {capacity}", output.size));
        };
        let rank = output.rank as usize;
        let Some(shape) = output.shape.get(..rank) else {
            return broken(format!("output {name:?} claims {rank} dimensions, {MAX_RANK} is the most"));
        };
        let bytes = Bytes::copy_from_slice(arena.bytes(index, size));
        let tensor = Tensor::raw(spec.dtype, shape.to_vec(), bytes)
            .or_else(|error| broken(format!("output {name:?}: {error}")))?;
        match &spec.shape {
            Some(dims) if !matches(shape, dims) => broken(format!(
                "output {name:?} has shape {}, which is not the described one",
                format_shape(shape)
            )),
            _ => Ok(tensor),
        }
    }
}

impl Instance for NativeInstance {
    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn platform(&self) -> &'static str {
        "baton_native"
    }

    fn run(&self, inputs: &[Tensor], outputs: &[usize], control: &RunControl) -> Result<Vec<Tensor>> {
        let (arena, written) = self.call(inputs, control)?;
        let read = |index: &usize| match written.get(*index) {
            Some(output) => self.read(*index, output, &arena),
            None => Err(Error::new(Code::Internal, "an output was asked for that the model does not have")),
        };
        let tensors = outputs.iter().map(read).collect();
        self.keep(arena);
        tensors
    }
}

impl Model {
    fn create(loaded: Loaded) -> Result<Self> {
        let mut pointer = std::ptr::null_mut();
        let mut buffer = [0; TEXT_BYTES];
        let mut text = text_buffer(&mut buffer);
        // SAFETY: both pointers are valid for the call; `Loaded` saw that the function is there.
        let status = loaded.api().create.map(|create| unsafe { create(&mut pointer, &mut text) });
        let size = text.size;
        match status {
            // From here on `destroy` is owed.
            Some(layout::STATUS_OK) => Ok(Self { pointer, loaded }),
            Some(status) => Err(failure(status, read_text(&buffer, size))),
            None => Err(Error::new(Code::DylibAbi, "the library's table lacks a function")),
        }
    }

    fn describe(&self) -> std::result::Result<Vec<u8>, String> {
        let Some(describe) = self.loaded.api().describe else {
            return Err("the library's table lacks a function".to_owned());
        };
        let [mut capacity, most] = DESCRIPTION_BYTES;
        loop {
            // With room behind it: a description that is too long must not end our process before it is refused.
            let mut buffer = vec![0; capacity];
            let mut text = text_buffer(&mut buffer);
            // SAFETY: the pointers are valid for the call.
            let status = unsafe { describe(self.pointer, &mut text) };
            let size = usize::try_from(text.size).unwrap_or(usize::MAX);
            match status {
                layout::STATUS_OK if size <= capacity => {
                    buffer.truncate(size);
                    return Ok(buffer);
                }
                layout::STATUS_MORE if size > capacity && size <= most => capacity = size,
                layout::STATUS_OK | layout::STATUS_MORE => {
                    return Err(format!(
                        "the model's description claims {size} bytes in a buffer of {capacity}"
                    ));
                }
                status => {
                    let failure = failure(status, read_text(&buffer, text.size));
                    return Err(format!("the model could not be described: {}", failure.text()));
                }
            }
        }
    }

    /// The status, and the text that the model wrote if it is one.
    fn run<'a>(
        &self,
        inputs: &[Input],
        outputs: &mut [Output],
        buffer: &'a mut [u8; TEXT_BYTES],
    ) -> (i32, Option<&'a str>) {
        let Some(run) = self.loaded.api().run else { return (layout::STATUS_FAILED, None) };
        let mut text = text_buffer(buffer);
        let count = |count: usize| u32::try_from(count).unwrap_or(u32::MAX);
        // SAFETY: every pointer is valid for the call, and counts and capacities are those of what it points to.
        let status = unsafe {
            run(
                self.pointer,
                inputs.as_ptr(),
                count(inputs.len()),
                outputs.as_mut_ptr(),
                count(outputs.len()),
                &mut text,
            )
        };
        let size = text.size;
        (status, read_text(buffer, size))
    }
}

fn text_buffer(buffer: &mut [u8]) -> Text {
    Text { data: buffer.as_mut_ptr(), capacity: buffer.len() as u64, size: 0 }
}

/// What a model wrote into a text buffer; `None` if it is no UTF-8.
fn read_text(buffer: &[u8], size: u64) -> Option<&str> {
    let written = usize::try_from(size).unwrap_or(usize::MAX).min(buffer.len());
    let bytes = buffer.get(..written)?;
    match std::str::from_utf8(bytes) {
        Ok(text) => Some(text),
        // Cut in the middle of a character.
        Err(error) if error.error_len().is_none() => {
            std::str::from_utf8(bytes.get(..error.valid_up_to())?).ok()
        }
        Err(_) => None,
    }
}

fn broken<T>(text: impl Into<String>) -> Result<T> {
    Err(Error::new(Code::ModelContract, text.into()))
}

/// A status other than success.
fn failure(status: i32, text: Option<&str>) -> Error {
    let Some(text) = text else {
        return Error::new(
            Code::ModelContract,
            format!("the model returned status {status} with a text that is no UTF-8"),
        );
    };
    let code = match status {
        layout::STATUS_INVALID_INPUT => Code::InputRefused,
        layout::STATUS_FAILED => Code::ModelFailed,
        layout::STATUS_PANIC => Code::ModelPanic,
        _ => {
            return Error::new(
                Code::ModelContract,
                format!("the model returned status {status}, which does not exist"),
            );
        }
    };
    let prefix = match code {
        Code::ModelPanic => "the model panicked: ",
        _ => "",
    };
    // A text that was cut in the middle of a character may be filled up.
    let text = text.trim_end();
    let text = if text.is_empty() { "the model gave no reason" } else { text };
    Error::new(code, format!("{prefix}{text}"))
}

fn datatype(dtype: Dtype) -> u32 {
    match dtype {
        Dtype::Bool => 1,
        Dtype::Uint8 => 2,
        Dtype::Uint16 => 3,
        Dtype::Uint32 => 4,
        Dtype::Uint64 => 5,
        Dtype::Int8 => 6,
        Dtype::Int16 => 7,
        Dtype::Int32 => 8,
        Dtype::Int64 => 9,
        Dtype::Fp16 => 10,
        Dtype::Fp32 => 11,
        Dtype::Fp64 => 12,
        Dtype::Bytes => 13,
        Dtype::Bf16 => 14,
    }
}

/// Elements at an address as the interface promises it: those of the tensor, or an aligned copy.
enum Aligned {
    Shared(Bytes),
    Copied { block: Vec<u8>, start: usize, size: usize },
}

impl Aligned {
    fn new(tensor: &Tensor) -> Self {
        let bytes = raw::encode(tensor);
        if bytes.as_ptr().align_offset(ALIGN) == 0 {
            return Self::Shared(bytes);
        }
        let mut block: Vec<u8> = Vec::with_capacity(bytes.len() + ALIGN);
        let start = block.as_ptr().align_offset(ALIGN);
        block.resize(start, 0);
        block.extend_from_slice(&bytes);
        Self::Copied { block, start, size: bytes.len() }
    }

    fn bytes(&self) -> &[u8] {
        match self {
            Self::Shared(bytes) => bytes,
            Self::Copied { block, start, size } => block.get(*start..start + size).unwrap_or_default(),
        }
    }
}

fn input(tensor: &Tensor, data: &Aligned) -> Input {
    let mut shape = [0; MAX_RANK];
    // A tensor's rank is at most 16.
    for (slot, size) in shape.iter_mut().zip(tensor.shape()) {
        *slot = *size;
    }
    let bytes = data.bytes();
    Input {
        datatype: datatype(tensor.dtype()),
        rank: u32::try_from(tensor.shape().len()).unwrap_or(0),
        shape,
        data: bytes.as_ptr(),
        size: bytes.len() as u64,
    }
}

fn output(spec: &TensorSpec, (data, capacity): (*mut u8, usize)) -> Output {
    Output {
        datatype: datatype(spec.dtype),
        rank: 0,
        shape: [0; MAX_RANK],
        data,
        capacity: capacity as u64,
        size: 0,
    }
}
