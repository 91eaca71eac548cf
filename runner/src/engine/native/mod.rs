//! Native models: shared libraries with the table of `baton-model-abi`.
//!
//! `elf` judges the file before anything of it runs, `library` loads it and lets it go, `call` runs it and checks its
//! answers, `arena` holds the buffers that it writes to. Nothing that a library returns is trusted. What a library
//! *does* cannot be checked: that is what workers are for (`engine/worker`), where this room does the loading as well.

mod arena;
mod call;
mod elf;
mod library;

pub(super) use arena::{Guard, guard_of};
pub(super) use library::sealed;
pub use library::{pinned, pinned_count};

use self::call::NativeInstance;
use self::library::Loaded;
use super::Instance;
use crate::error::{Code, Error, Result};

/// Checks a library without loading it.
///
/// # Errors
/// `DYLIB_FORMAT`, `DYLIB_ABI` or `DYLIB_SYMBOL`.
pub(super) fn check(artifact: &[u8]) -> Result<()> {
    elf::inspect(artifact).map(|_| ())
}

/// Checks a library that is to run in the server's process, where those of other versions are.
///
/// # Errors
/// Those of [`check`]; `EXECUTION_REFUSED`.
pub(super) fn check_shared(artifact: &[u8]) -> Result<()> {
    match elf::inspect(artifact)?.shares_symbols {
        false => Ok(()),
        true => Err(Error::new(
            Code::ExecutionRefused,
            "the library has symbols of which a process keeps one for all versions (STB_GNU_UNIQUE), so it could run \
             another version's code: build it with -fno-gnu-unique, or drop execution = \"in-process\"",
        )),
    }
}

/// Loads the library of `model` into this process and creates its model. `most_pinned` libraries may have stayed mapped.
///
/// # Errors
/// Those of [`check`]; `LIBRARY_PINNED`, `DYLIB_DEPENDENCY`, `PREPARE_FAILED`.
pub(super) fn load(artifact: &[u8], model: &str, most_pinned: usize) -> Result<Box<dyn Instance>> {
    let build = elf::inspect(artifact)?.build;
    let loaded = Loaded::open(artifact, model, build, most_pinned)?;
    Ok(Box::new(NativeInstance::create(loaded)?))
}
