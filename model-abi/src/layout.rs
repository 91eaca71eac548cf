//! The binary interface, version 1. `include/baton_model.h` says the same in C; a test compares the two.
//!
//! Rules that hold for every call: whoever calls owns all buffers, and nothing that one side allocated is freed by the
//! other. No call may unwind. Structs grow at their end only, and `Api::size` tells how much of the table is there.

use std::ffi::c_void;

/// Version of this interface; a library with another one is not loaded.
pub const ABI_VERSION: u32 = 1;
/// Name of the exported [`Api`].
pub const SYMBOL: &str = "baton_model";
/// Dimensions that a tensor may have.
pub const MAX_RANK: usize = 16;
/// Owner of the ELF note; the note's type is [`NOTE_TYPE`].
pub const NOTE_OWNER: [u8; 8] = *b"Baton\0\0\0";
/// Type of the ELF note.
pub const NOTE_TYPE: u32 = 1;
/// Section of the ELF note.
pub const NOTE_SECTION: &str = ".note.baton";

/// [`Api::features`]: `run` may be called on one model by several threads at once. Without it calls come one by one.
pub const CONCURRENT: u64 = 1;

/// The call succeeded.
pub const STATUS_OK: i32 = 0;
/// A buffer is too small: each `size` says what is needed. The call is repeated with larger buffers.
pub const STATUS_MORE: i32 = 1;
/// The inputs are not what the model takes; the text says why.
pub const STATUS_INVALID_INPUT: i32 = 2;
/// The model failed; the text says why.
pub const STATUS_FAILED: i32 = 3;
/// The model panicked, and the panic was caught; the text is its message.
pub const STATUS_PANIC: i32 = 4;

/// The table that a library exports as the data symbol `baton_model`.
#[repr(C)]
#[derive(Debug)]
pub struct Api {
    /// [`ABI_VERSION`] at the library's build.
    pub abi_version: u32,
    /// Bytes of this table at the library's build.
    pub size: u32,
    /// What the model can do; unknown bits are ignored.
    pub features: u64,
    /// Makes a model. On success `*model` is what the other calls get; it may be null.
    pub create: Option<unsafe extern "C" fn(model: *mut *mut c_void, text: *mut Text) -> i32>,
    /// Writes inputs and outputs as JSON in the form of the Open Inference Protocol's model metadata:
    /// `{"inputs":[{"name":"x","datatype":"FP32","shape":[-1,4]}],"outputs":[...]}`. An output may have
    /// `"labels":["a","b"]`, which name the elements of its last dimension.
    pub describe: Option<unsafe extern "C" fn(model: *mut c_void, text: *mut Text) -> i32>,
    /// Runs the model once. Inputs and outputs come in the order of the description.
    pub run: Option<
        unsafe extern "C" fn(
            model: *mut c_void,
            inputs: *const Input,
            input_count: u32,
            outputs: *mut Output,
            output_count: u32,
            text: *mut Text,
        ) -> i32,
    >,
    /// Ends a model; the last call that it gets.
    pub destroy: Option<unsafe extern "C" fn(model: *mut c_void)>,
}

// SAFETY: the table is numbers and function pointers.
unsafe impl Sync for Api {}

/// A buffer of the caller for UTF-8 text.
#[repr(C)]
#[derive(Debug)]
pub struct Text {
    pub data: *mut u8,
    /// Bytes that fit.
    pub capacity: u64,
    /// Set by the callee: bytes that the text has. More than `capacity` in an error's text means that it was cut.
    pub size: u64,
}

/// A tensor that the model reads.
#[repr(C)]
#[derive(Debug, Clone)]
pub struct Input {
    /// One of the numbers of [`crate::Datatype`].
    pub datatype: u32,
    /// How many entries of `shape` count.
    pub rank: u32,
    pub shape: [i64; MAX_RANK],
    /// Elements in row-major order, little-endian, aligned to 64 bytes; BYTES elements each behind their length (u32).
    /// Valid until the call returns, and not to be written to.
    pub data: *const u8,
    /// Bytes at `data`.
    pub size: u64,
}

/// A tensor that the model writes.
#[repr(C)]
#[derive(Debug, Clone)]
pub struct Output {
    /// What the description says; not to be changed.
    pub datatype: u32,
    /// Set by the model: how many entries of `shape` count.
    pub rank: u32,
    /// Set by the model.
    pub shape: [i64; MAX_RANK],
    /// The caller's buffer, aligned to 64 bytes.
    pub data: *mut u8,
    /// Bytes that fit.
    pub capacity: u64,
    /// Set by the model: bytes written, or needed.
    pub size: u64,
}

/// The ELF note that lets a library be judged before anything of it runs.
#[repr(C, align(4))]
#[derive(Debug)]
pub struct Note {
    /// 6: length of `Baton` with its end.
    pub owner_size: u32,
    /// 64.
    pub description_size: u32,
    /// [`NOTE_TYPE`].
    pub kind: u32,
    /// [`NOTE_OWNER`].
    pub owner: [u8; 8],
    /// [`ABI_VERSION`] at the library's build.
    pub abi_version: u32,
    /// Name and version of the library, for people; UTF-8, filled up with zeros.
    pub build: [u8; 60],
}

const _: () = {
    assert!(size_of::<Api>() == 48);
    assert!(size_of::<Text>() == 24);
    assert!(size_of::<Input>() == 152);
    assert!(size_of::<Output>() == 160);
    assert!(size_of::<Note>() == 84);
};
