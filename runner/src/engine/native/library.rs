//! Loads a shared library into this process, and finds out whether it has really gone when it is closed.
//!
//! A library is loaded from a sealed memory file of its own: nobody can change it under the running code, and no path
//! is used twice. The C library compares paths before it looks at files, so the same path, or the same descriptor
//! number, would give the *earlier* library as long as that is mapped; hence the descriptor stays open until the
//! mapping is gone. It may never go: a destructor of a thread-local value, or a thread that runs on, keeps it.

use std::fs::File;
use std::io::Write;
use std::os::fd::AsRawFd;
use std::sync::{Mutex, PoisonError};

use baton_model_abi::layout::{self, Api};
use libloading::os::unix::{Library, RTLD_LOCAL, RTLD_NOW};
use rustix::fs::{MemfdFlags, SealFlags};

use crate::error::{Code, Error, Result};

/// A library that was closed and is still mapped. Its file stays open for good.
struct Pinned {
    model: String,
    build: String,
    _file: File,
}

static PINNED: Mutex<Vec<Pinned>> = Mutex::new(Vec::new());

/// Libraries of a model's earlier versions that stay mapped in this process, as their authors called them.
pub fn pinned(model: &str) -> Vec<String> {
    let pinned = PINNED.lock().unwrap_or_else(PoisonError::into_inner);
    pinned.iter().filter(|pinned| pinned.model == model).map(|pinned| pinned.build.clone()).collect()
}

/// Libraries of earlier versions that stay mapped in this process, of all models.
pub fn pinned_count() -> usize {
    PINNED.lock().unwrap_or_else(PoisonError::into_inner).len()
}

/// A library in this process. Closed when dropped.
pub(super) struct Loaded {
    /// Taken out by `drop` only.
    library: Option<Library>,
    file: Option<File>,
    api: *const Api,
    /// Whose it is, and what its author calls it.
    model: String,
    build: String,
}

// SAFETY: the table is constant data of the library, which stays loaded as long as `self`.
unsafe impl Send for Loaded {}
// SAFETY: as for `Send`.
unsafe impl Sync for Loaded {}

impl Loaded {
    /// Loads a library that was inspected. Runs its constructors.
    ///
    /// # Errors
    /// `LIBRARY_PINNED`, `DYLIB_DEPENDENCY`, `DYLIB_FORMAT`, `DYLIB_SYMBOL`, `DYLIB_ABI`.
    pub(super) fn open(artifact: &[u8], model: &str, build: String, most_pinned: usize) -> Result<Self> {
        let count = pinned_count();
        if count >= most_pinned {
            return Err(Error::new(
                Code::LibraryPinned,
                format!("{count} native libraries of earlier versions stay mapped, which is the limit"),
            ));
        }
        let file = sealed(artifact).map_err(|error| {
            Error::new(Code::Internal, "cannot keep the library in a memory file").caused_by(error)
        })?;
        // SAFETY: loading runs the library's constructors, which is what loading a native model means; whoever runs
        // this process allowed it, or it is a worker.
        let library = unsafe { Library::open(Some(path(&file)), RTLD_NOW | RTLD_LOCAL) }.map_err(refusal)?;
        // SAFETY: `inspect` found a data symbol of this name and at least the table's size.
        let symbol = unsafe { library.get::<*const Api>(layout::SYMBOL) };
        let api = *symbol.map_err(|error| {
            Error::new(Code::DylibSymbol, format!("the library does not export {}", layout::SYMBOL))
                .caused_by(error)
        })?;
        let loaded = Self { library: Some(library), file: Some(file), api, model: model.to_owned(), build };
        loaded.check()?;
        Ok(loaded)
    }

    fn check(&self) -> Result<()> {
        let api = self.api();
        let refuse = |text: String| Err(Error::new(Code::DylibAbi, text));
        if api.abi_version != layout::ABI_VERSION {
            let (got, wanted) = (api.abi_version, layout::ABI_VERSION);
            return refuse(format!(
                "the library's table is of version {got} of the interface, this server has {wanted}"
            ));
        }
        if (api.size as usize) < size_of::<Api>() {
            return refuse(format!("the library's table says that it has {} bytes only", api.size));
        }
        if api.create.is_none() || api.describe.is_none() || api.run.is_none() || api.destroy.is_none() {
            return refuse("the library's table lacks a function".to_owned());
        }
        Ok(())
    }

    /// The library's table.
    pub(super) fn api(&self) -> &Api {
        // SAFETY: the symbol's address, in a library that stays loaded as long as `self`; `inspect` saw that the whole
        // table lies inside the library.
        unsafe { &*self.api }
    }
}

impl Drop for Loaded {
    fn drop(&mut self) {
        let (Some(library), Some(file)) = (self.library.take(), self.file.take()) else { return };
        if let Err(error) = library.close() {
            tracing::warn!("cannot close a native library: {error}");
        }
        if is_mapped(&file) {
            tracing::warn!(library = self.build, "a native library stays mapped after it was closed");
            let (model, build) = (std::mem::take(&mut self.model), std::mem::take(&mut self.build));
            let mut pinned = PINNED.lock().unwrap_or_else(PoisonError::into_inner);
            pinned.push(Pinned { model, build, _file: file });
        }
    }
}

/// A file in memory that nobody can change.
pub(in crate::engine) fn sealed(bytes: &[u8]) -> std::io::Result<File> {
    let file = rustix::fs::memfd_create("baton-artifact", MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING)?;
    let mut file = File::from(file);
    file.write_all(bytes)?;
    rustix::fs::fcntl_add_seals(
        &file,
        SealFlags::WRITE | SealFlags::SHRINK | SealFlags::GROW | SealFlags::SEAL,
    )?;
    Ok(file)
}

fn path(file: &File) -> String {
    format!("/proc/self/fd/{}", file.as_raw_fd())
}

fn is_mapped(file: &File) -> bool {
    // SAFETY: with RTLD_NOLOAD nothing is loaded, so no foreign code runs; a handle that comes back is closed again.
    let handle = unsafe { Library::open(Some(path(file)), libc::RTLD_NOLOAD | RTLD_NOW) };
    handle.is_ok_and(|handle| handle.close().is_ok())
}

/// The dynamic loader's refusal in our words. Its own name the library by a descriptor's path, which says nothing.
fn refusal(error: libloading::Error) -> Error {
    // What the loader says is the error's source.
    let text = std::error::Error::source(&error).map_or_else(|| error.to_string(), ToString::to_string);
    let (_, reason) = text.split_once(": ").filter(|(path, _)| path.contains("/fd/")).unwrap_or(("", &text));
    let reason: String = reason.chars().take(300).collect();
    let is_dependency = ["cannot open shared object", "' not found", "undefined symbol"];
    let code = match is_dependency.iter().any(|words| text.contains(words)) {
        true => Code::DylibDependency,
        false => Code::DylibFormat,
    };
    Error::new(code, format!("the library cannot be loaded: {reason}"))
}
