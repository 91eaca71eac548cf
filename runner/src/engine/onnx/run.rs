//! One run through the C API, on `&self`.
//!
//! `ort`'s safe `Session::run` takes `&mut self` because some execution providers are not thread-safe. On the CPU
//! provider, the only one used here, ONNX Runtime states that `Run` may be called on one session from several threads
//! at once; a pool of sessions would cost the weights once a thread. `concurrent_runs_agree` in `session` stresses it.
//!
//! Inputs are borrowed from the request's buffer where that is aligned for the element type, copied into an aligned
//! one otherwise. Outputs are copied out: an `OrtValue` that outlived its session on a request thread would make that
//! thread free the session.

use std::cell::RefCell;
use std::ffi::{CStr, CString, c_char, c_void};
use std::ptr::{self, NonNull};

use bytes::Bytes;
use ort::sys::{
    ONNXTensorElementDataType as ElementType, OrtAllocator, OrtAllocatorType, OrtMemType, OrtMemoryInfo,
    OrtRunOptions, OrtSession, OrtStatusPtr, OrtValue,
};

use super::watchdog::{self, Stopped};
use crate::engine::RunControl;
use crate::error::{Code, Error, Result};
use crate::tensor::{Dtype, Elements, Tensor};

/// Aligned buffers above this size are not kept for the next run.
const SCRATCH_KEPT: usize = 1 << 17;

/// What ONNX Runtime said when it refused.
#[derive(Debug, thiserror::Error)]
#[error("{message}")]
pub(super) struct Failure {
    message: String,
}

/// Turns a status of the C API into a result and releases it.
fn check(status: OrtStatusPtr) -> std::result::Result<(), Failure> {
    let Some(status) = NonNull::new(status.0) else { return Ok(()) };
    let api = ort::api();
    // SAFETY: a non-null status is a valid object until it is released; its message is a C string that it owns.
    let message = unsafe {
        let message = CStr::from_ptr((api.GetErrorMessage)(status.as_ptr())).to_string_lossy().into_owned();
        (api.ReleaseStatus)(status.as_ptr());
        message
    };
    Err(Failure { message })
}

/// Releases a status whose content does not matter.
pub(super) fn discard(status: OrtStatusPtr) {
    if let Err(failure) = check(status) {
        tracing::warn!("ONNX Runtime: {failure}");
    }
}

/// Run options for the calling thread.
pub(super) fn create_run_options() -> NonNull<OrtRunOptions> {
    let mut options = ptr::null_mut();
    // SAFETY: the out pointer is valid; on success it holds a new object that the caller releases.
    discard(unsafe { (ort::api().CreateRunOptions)(&mut options) });
    // A failed allocation of a few hundred bytes is the end of the process in Rust as well.
    NonNull::new(options).unwrap_or_else(|| std::alloc::handle_alloc_error(std::alloc::Layout::new::<u64>()))
}

/// An `OrtValue` that is released when dropped.
struct Value(NonNull<OrtValue>);

impl Drop for Value {
    fn drop(&mut self) {
        // SAFETY: the pointer came from the C API and nothing uses it afterwards.
        unsafe { (ort::api().ReleaseValue)(self.0.as_ptr()) };
    }
}

/// What a session needs for every run, computed once.
pub(super) struct Runner {
    input_names: Vec<CString>,
    output_names: Vec<CString>,
    memory: NonNull<OrtMemoryInfo>,
    allocator: NonNull<OrtAllocator>,
}

// SAFETY: the memory info is immutable after creation and the default allocator is the process-wide, thread-safe one.
unsafe impl Send for Runner {}
// SAFETY: as for `Send`.
unsafe impl Sync for Runner {}

impl Drop for Runner {
    fn drop(&mut self) {
        // SAFETY: created in `new`, used nowhere else. The default allocator is not ours to release.
        unsafe { (ort::api().ReleaseMemoryInfo)(self.memory.as_ptr()) };
    }
}

impl Runner {
    /// Names in the signature's order.
    pub(super) fn new(
        input_names: Vec<CString>,
        output_names: Vec<CString>,
    ) -> std::result::Result<Self, Failure> {
        let absent = || Failure { message: "a null object".to_owned() };
        let api = ort::api();
        let mut memory = ptr::null_mut();
        // SAFETY: the out pointer is valid.
        check(unsafe {
            (api.CreateCpuMemoryInfo)(
                OrtAllocatorType::OrtDeviceAllocator,
                OrtMemType::OrtMemTypeDefault,
                &mut memory,
            )
        })?;
        let memory = NonNull::new(memory).ok_or_else(absent)?;
        let mut allocator = ptr::null_mut();
        // SAFETY: the out pointer is valid; the allocator is static in the library.
        check(unsafe { (api.GetAllocatorWithDefaultOptions)(&mut allocator) })?;
        let allocator = NonNull::new(allocator).ok_or_else(absent)?;
        Ok(Self { input_names, output_names, memory, allocator })
    }

    /// Runs `session` once. `inputs` are in the order of the names; `outputs` are positions of output names.
    ///
    /// # Safety
    /// `session` must be a live session of the CPU provider whose inputs and outputs have this runner's names.
    pub(super) unsafe fn run(
        &self,
        session: NonNull<OrtSession>,
        inputs: &[Tensor],
        outputs: &[usize],
        control: &RunControl,
    ) -> Result<Vec<Tensor>> {
        let mut scratch = Scratch::take();
        let values = inputs
            .iter()
            .map(|input| self.input(input, &mut scratch))
            .collect::<std::result::Result<Vec<Value>, Failure>>()
            .map_err(|failure| describe(failure, None))?;
        let input_names: Vec<*const c_char> = self.input_names.iter().map(|name| name.as_ptr()).collect();
        let output_names: Vec<*const c_char> = outputs
            .iter()
            .filter_map(|index| self.output_names.get(*index))
            .map(|name| name.as_ptr())
            .collect();
        let input_values: Vec<*const OrtValue> =
            values.iter().map(|value| value.0.as_ptr().cast_const()).collect();
        let mut produced: Vec<*mut OrtValue> = vec![ptr::null_mut(); output_names.len()];

        let (status, stopped) = watchdog::watched(control, |options| {
            // SAFETY: the caller vouches for the session; names and values are arrays of the given lengths that
            // outlive the call; the input values borrow `inputs` and `scratch`, which outlive it too.
            unsafe {
                (ort::api().Run)(
                    session.as_ptr(),
                    options,
                    input_names.as_ptr(),
                    input_values.as_ptr(),
                    input_values.len(),
                    output_names.as_ptr(),
                    output_names.len(),
                    produced.as_mut_ptr(),
                )
            }
        });
        let produced: Vec<Option<Value>> =
            produced.into_iter().map(|value| NonNull::new(value).map(Value)).collect();
        drop(values);
        scratch.put_back();
        check(status).map_err(|failure| describe(failure, stopped))?;
        produced
            .into_iter()
            .map(|value| {
                let value =
                    value.ok_or_else(|| Error::new(Code::ModelFailed, "the model left an output empty"))?;
                output(&value, control.output_bytes)
            })
            .collect()
    }

    fn input(&self, tensor: &Tensor, scratch: &mut Scratch) -> std::result::Result<Value, Failure> {
        let api = ort::api();
        let mut value = ptr::null_mut();
        let shape = tensor.shape();
        match tensor.elements() {
            Elements::Raw(bytes) => {
                let data = scratch.aligned(bytes, tensor.dtype());
                // SAFETY: `data` is readable for `bytes.len()` bytes, aligned, and kept until the run is over; ONNX
                // Runtime does not write to the inputs of a run.
                check(unsafe {
                    (api.CreateTensorWithDataAsOrtValue)(
                        self.memory.as_ptr(),
                        data.cast_mut().cast::<c_void>(),
                        bytes.len(),
                        shape.as_ptr(),
                        shape.len(),
                        element_type(tensor.dtype()),
                        &mut value,
                    )
                })?;
                owned(value)
            }
            Elements::Text(elements) => {
                // SAFETY: shape and out pointer are valid; the allocator is the library's own.
                check(unsafe {
                    (api.CreateTensorAsOrtValue)(
                        self.allocator.as_ptr(),
                        shape.as_ptr(),
                        shape.len(),
                        ElementType::ONNX_TENSOR_ELEMENT_DATA_TYPE_STRING,
                        &mut value,
                    )
                })?;
                let value = owned(value)?;
                for (index, element) in elements.iter().enumerate() {
                    let mut buffer = ptr::null_mut();
                    // SAFETY: `index` is below the element count that the shape gave; on success `buffer` has room
                    // for `element.len()` bytes. (FillStringTensor would stop at the first NUL.)
                    check(unsafe {
                        (api.GetResizedStringTensorElementBuffer)(
                            value.0.as_ptr(),
                            index,
                            element.len(),
                            &mut buffer,
                        )
                    })?;
                    // SAFETY: see above; the two buffers are distinct.
                    unsafe { ptr::copy_nonoverlapping(element.as_ptr(), buffer.cast::<u8>(), element.len()) };
                }
                Ok(value)
            }
        }
    }
}

fn owned(value: *mut OrtValue) -> std::result::Result<Value, Failure> {
    NonNull::new(value).map(Value).ok_or_else(|| Failure { message: "a null value".to_owned() })
}

/// Copies an output out of ONNX Runtime.
fn output(value: &Value, limit: usize) -> Result<Tensor> {
    let api = ort::api();
    let failed = |failure: Failure| describe(failure, None);
    let mut is_tensor = 0;
    // SAFETY: the value is live, the out pointer valid.
    check(unsafe { (api.IsTensor)(value.0.as_ptr(), &mut is_tensor) }).map_err(failed)?;
    if is_tensor != 1 {
        return Err(Error::new(Code::ModelFailed, "the model gave an output that is no tensor"));
    }
    let mut element = ElementType::ONNX_TENSOR_ELEMENT_DATA_TYPE_UNDEFINED;
    let (mut dims, mut rank) = (ptr::null(), 0);
    // SAFETY: the value is a live tensor; `dims` points into it.
    check(unsafe {
        (api.GetTensorElementTypeAndShapeDataReference)(value.0.as_ptr(), &mut element, &mut dims, &mut rank)
    })
    .map_err(failed)?;
    let shape = if rank == 0 || dims.is_null() {
        Vec::new()
    } else {
        // SAFETY: on success `dims` holds `rank` sizes and lives as long as the value.
        unsafe { std::slice::from_raw_parts(dims, rank) }.to_vec()
    };
    let dtype = dtype_of(element).ok_or_else(|| {
        Error::new(Code::ModelFailed, "the model gave an output of a type that cannot be served")
    })?;
    let malformed = |error: crate::tensor::TensorError| {
        Error::new(Code::ModelFailed, "the model gave a malformed output").caused_by(error)
    };
    let count = crate::tensor::element_count(&shape).map_err(malformed)?;
    let too_large = |size: usize| {
        Error::new(
            Code::OutputTooLarge,
            format!("an output of the model has {size} bytes, the limit is {limit}"),
        )
    };
    let Some(width) = dtype.width() else {
        let elements = strings(value, count, limit).map_err(failed)?.ok_or_else(|| too_large(limit))?;
        return Tensor::text(shape, elements).map_err(malformed);
    };
    let size = count.saturating_mul(width);
    if size > limit {
        return Err(too_large(size));
    }
    let bytes = if size == 0 {
        Bytes::new()
    } else {
        let mut data = ptr::null_mut();
        // SAFETY: the value is a live tensor of a fixed-width type.
        check(unsafe { (api.GetTensorMutableData)(value.0.as_ptr(), &mut data) }).map_err(failed)?;
        // SAFETY: a tensor of `count` elements of `width` bytes lies at `data`.
        Bytes::copy_from_slice(unsafe { std::slice::from_raw_parts(data.cast::<u8>(), size) })
    };
    Tensor::raw(dtype, shape, bytes).map_err(malformed)
}

/// The elements of a string tensor; `None` if they are larger than `limit` together.
fn strings(value: &Value, count: usize, limit: usize) -> std::result::Result<Option<Vec<Bytes>>, Failure> {
    if count == 0 {
        return Ok(Some(Vec::new()));
    }
    let api = ort::api();
    let mut length = 0;
    // SAFETY: the value is a live string tensor.
    check(unsafe { (api.GetStringTensorDataLength)(value.0.as_ptr(), &mut length) })?;
    if length.saturating_add(count.saturating_mul(4)) > limit {
        return Ok(None);
    }
    let mut text = vec![0_u8; length];
    let mut offsets = vec![0_usize; count];
    // SAFETY: both buffers have the lengths that are passed; the library checks them against the tensor.
    check(unsafe {
        (api.GetStringTensorContent)(
            value.0.as_ptr(),
            text.as_mut_ptr().cast::<c_void>(),
            length,
            offsets.as_mut_ptr(),
            count,
        )
    })?;
    let text = Bytes::from(text);
    let ends = offsets.iter().copied().skip(1).chain([length]);
    let elements = offsets.iter().zip(ends).map(|(start, end)| text.slice(*start..end.max(*start))).collect();
    Ok(Some(elements))
}

/// Aligned copies of inputs that lie unaligned in the request's buffer; the buffers are reused by the thread.
struct Scratch {
    buffers: Vec<Vec<u64>>,
    used: usize,
}

thread_local! {
    static BUFFERS: RefCell<Vec<Vec<u64>>> = const { RefCell::new(Vec::new()) };
}

impl Scratch {
    fn take() -> Self {
        Self { buffers: BUFFERS.with(RefCell::take), used: 0 }
    }

    fn put_back(mut self) {
        self.buffers.retain(|buffer| buffer.capacity() * 8 <= SCRATCH_KEPT);
        BUFFERS.with(|buffers| buffers.replace(self.buffers));
    }

    /// A pointer to the same bytes, aligned for `dtype`; valid until `put_back`.
    fn aligned(&mut self, bytes: &Bytes, dtype: Dtype) -> *const u8 {
        let width = dtype.width().unwrap_or(1);
        if bytes.is_empty() {
            // ONNX Runtime wants a pointer even for no elements.
            static NOTHING: u64 = 0;
            return ptr::from_ref(&NOTHING).cast();
        }
        if bytes.as_ptr().addr().is_multiple_of(width) {
            return bytes.as_ptr();
        }
        if self.used == self.buffers.len() {
            self.buffers.push(Vec::new());
        }
        let words = bytes.len().div_ceil(8);
        let Some(buffer) = self.buffers.get_mut(self.used) else { return bytes.as_ptr() };
        self.used += 1;
        if buffer.len() < words {
            buffer.resize(words, 0);
        }
        let start = buffer.as_mut_ptr().cast::<u8>();
        // SAFETY: the buffer has at least `bytes.len()` bytes, and nothing else refers to it.
        unsafe { ptr::copy_nonoverlapping(bytes.as_ptr(), start, bytes.len()) };
        start
    }
}

fn element_type(dtype: Dtype) -> ElementType {
    match dtype {
        Dtype::Bool => ElementType::ONNX_TENSOR_ELEMENT_DATA_TYPE_BOOL,
        Dtype::Uint8 => ElementType::ONNX_TENSOR_ELEMENT_DATA_TYPE_UINT8,
        Dtype::Uint16 => ElementType::ONNX_TENSOR_ELEMENT_DATA_TYPE_UINT16,
        Dtype::Uint32 => ElementType::ONNX_TENSOR_ELEMENT_DATA_TYPE_UINT32,
        Dtype::Uint64 => ElementType::ONNX_TENSOR_ELEMENT_DATA_TYPE_UINT64,
        Dtype::Int8 => ElementType::ONNX_TENSOR_ELEMENT_DATA_TYPE_INT8,
        Dtype::Int16 => ElementType::ONNX_TENSOR_ELEMENT_DATA_TYPE_INT16,
        Dtype::Int32 => ElementType::ONNX_TENSOR_ELEMENT_DATA_TYPE_INT32,
        Dtype::Int64 => ElementType::ONNX_TENSOR_ELEMENT_DATA_TYPE_INT64,
        Dtype::Fp16 => ElementType::ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT16,
        Dtype::Bf16 => ElementType::ONNX_TENSOR_ELEMENT_DATA_TYPE_BFLOAT16,
        Dtype::Fp32 => ElementType::ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT,
        Dtype::Fp64 => ElementType::ONNX_TENSOR_ELEMENT_DATA_TYPE_DOUBLE,
        Dtype::Bytes => ElementType::ONNX_TENSOR_ELEMENT_DATA_TYPE_STRING,
    }
}

fn dtype_of(element: ElementType) -> Option<Dtype> {
    Dtype::ALL.into_iter().find(|dtype| element_type(*dtype) == element)
}

/// Turns what ONNX Runtime said into our words: its message may hold server paths and is not for callers, but which
/// node refused is a fact about the caller's own model.
fn describe(failure: Failure, stopped: Option<Stopped>) -> Error {
    let text = match stopped {
        Some(Stopped::Deadline) => {
            return Error::new(Code::Deadline, "the model was stopped: the run passed its deadline");
        }
        Some(Stopped::Cancelled) => {
            return Error::new(Code::Cancelled, "the run was stopped: the caller has left");
        }
        None if failure.message.contains("allocate") || failure.message.contains("bad_alloc") => {
            "the model failed: it asked for more memory than there is".to_owned()
        }
        None if failure.message.contains("nteger division by zero")
            || failure.message.contains("modulo by zero") =>
        {
            "the model failed: it divided an integer by zero".to_owned()
        }
        None => match failing_node(&failure.message) {
            Some((operator, "")) => {
                format!("the model failed in a node of type {operator}: these inputs do not suit it")
            }
            Some((operator, name)) => {
                format!("the model failed in its {operator} node {name:?}: these inputs do not suit it")
            }
            None => "the model failed on these inputs".to_owned(),
        },
    };
    // Names, types and shapes were checked before; what is left is the model's own business.
    Error::new(Code::ModelFailed, text).caused_by(failure)
}

/// ONNX Runtime names the node in "... while running Gather node. Name:'x' ...".
fn failing_node(message: &str) -> Option<(&str, &str)> {
    let (_, rest) = message.split_once("while running ")?;
    let (operator, rest) = rest.split_once(" node. Name:'")?;
    let (name, _) = rest.split_once('\'')?;
    Some((operator, name))
}
