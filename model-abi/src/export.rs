//! The table of a [`Model`]: its trait's functions as C calls that never unwind.

use std::any::Any;
use std::ffi::c_void;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::OnceLock;

use crate::error::Error;
use crate::layout::{
    ABI_VERSION, Api, CONCURRENT, Input, Output, STATUS_MORE, STATUS_OK, STATUS_PANIC, Text,
};
use crate::signature::Signature;
use crate::tensor::{Inputs, Outputs};
use crate::{Model, layout};

/// Exports a [`Model`] from a `cdylib`: its table `baton_model`, and the ELF note with the package's name and version.
/// Once a library.
#[macro_export]
macro_rules! export_model {
    ($model:ty) => {
        /// The model's table, for Baton.
        #[unsafe(no_mangle)]
        #[allow(non_upper_case_globals, reason = "the binary interface gives the name")]
        pub static baton_model: $crate::layout::Api = $crate::export::api::<$model>();

        const _: () = {
            // A section whose name begins with `.note` becomes a note by LLVM's own rule.
            #[used]
            #[cfg_attr(target_os = "linux", unsafe(link_section = ".note.baton"))]
            static NOTE: $crate::layout::Note = $crate::note::note(::core::concat!(
                ::core::env!("CARGO_PKG_NAME"),
                " ",
                ::core::env!("CARGO_PKG_VERSION")
            ));
        };
    };
}

/// The table that [`export_model!`](crate::export_model) exports.
pub const fn api<M: Model>() -> Api {
    Api {
        abi_version: ABI_VERSION,
        size: size_of::<Api>() as u32,
        features: CONCURRENT,
        create: Some(create::<M>),
        describe: Some(describe::<M>),
        run: Some(run::<M>),
        destroy: Some(destroy::<M>),
    }
}

/// What the caller's pointer points to.
struct Held<M> {
    model: M,
    /// Outputs are written by name, so every run needs it.
    signature: OnceLock<Signature>,
}

impl<M: Model> Held<M> {
    /// Asked for at the first call that needs it, not in `create`, so that its panic is one of `describe`.
    fn signature(&self) -> &Signature {
        self.signature.get_or_init(|| self.model.signature())
    }

    /// # Safety
    /// A pointer that [`create`] of the same `M` gave and that was not destroyed, or null.
    unsafe fn of<'a>(model: *mut c_void) -> Result<&'a Self, Error> {
        // SAFETY: as the caller promises; models are only ever shared.
        unsafe { model.cast::<Self>().as_ref() }.ok_or_else(|| Error::failed("the caller gave no model"))
    }
}

/// # Safety
/// As [`layout::Api::create`] says; null pointers are survived.
unsafe extern "C" fn create<M: Model>(model: *mut *mut c_void, text: *mut Text) -> i32 {
    let call = || {
        if model.is_null() {
            return Err(Error::failed("the caller has no place for the model"));
        }
        // Whatever the reason, a model that could not be made is a failure: there was no input.
        let made = M::create().map_err(Error::failed)?;
        let held = Box::new(Held { model: made, signature: OnceLock::new() });
        // SAFETY: not null, and the caller's place for a pointer.
        unsafe { model.write(Box::into_raw(held).cast()) };
        Ok(STATUS_OK)
    };
    // SAFETY: the caller's text.
    unsafe { guarded(text, call) }
}

/// # Safety
/// As [`layout::Api::describe`] says; null pointers are survived.
unsafe extern "C" fn describe<M: Model>(model: *mut c_void, text: *mut Text) -> i32 {
    let call = || {
        // SAFETY: the caller's model, which it owns until `destroy`.
        let held = unsafe { Held::<M>::of(model) }?;
        let json = held.signature().to_json();
        // SAFETY: the caller's text.
        match unsafe { write_text(text, &json) } {
            Fit::Whole => Ok(STATUS_OK),
            Fit::Cut => Ok(STATUS_MORE),
            Fit::Nowhere => Err(Error::failed("the caller has no place for the description")),
        }
    };
    // SAFETY: the caller's text.
    unsafe { guarded(text, call) }
}

/// # Safety
/// As [`layout::Api::run`] says; null pointers are survived.
unsafe extern "C" fn run<M: Model>(
    model: *mut c_void,
    inputs: *const Input,
    input_count: u32,
    outputs: *mut Output,
    output_count: u32,
    text: *mut Text,
) -> i32 {
    let call = || {
        // SAFETY: the caller's model, which it owns until `destroy`.
        let held = unsafe { Held::<M>::of(model) }?;
        let signature = held.signature();
        // SAFETY: the caller's inputs, valid and unchanged until this call returns.
        let inputs = unsafe { Inputs::new(inputs, input_count, signature.inputs()) }?;
        // SAFETY: the caller's outputs, which nobody else looks at until this call returns.
        let mut outputs = unsafe { Outputs::new(outputs, output_count, signature.outputs()) }?;
        held.model.run(&inputs, &mut outputs)?;
        outputs.finish()
    };
    // SAFETY: the caller's text.
    unsafe { guarded(text, call) }
}

/// # Safety
/// As [`layout::Api::destroy`] says; null is survived.
unsafe extern "C" fn destroy<M: Model>(model: *mut c_void) {
    if model.is_null() {
        return;
    }
    // SAFETY: what `create` made, and the last call for it.
    let end = || drop(unsafe { Box::from_raw(model.cast::<Held<M>>()) });
    if let Err(panic) = catch_unwind(AssertUnwindSafe(end)) {
        discard(panic);
    }
}

/// Makes a call, and turns its error or panic into a status and a text.
///
/// A model that panicked is called again (its state is its own matter, and `Sync`), hence `AssertUnwindSafe`.
///
/// # Safety
/// `text` is null, or the caller's for this call.
unsafe fn guarded(text: *mut layout::Text, call: impl FnOnce() -> Result<i32, Error>) -> i32 {
    let (status, reason) = match catch_unwind(AssertUnwindSafe(call)) {
        Ok(Ok(status)) => return status,
        Ok(Err(error)) => (error.status(), error.text().to_owned()),
        Err(panic) => {
            let message = message(panic.as_ref());
            discard(panic);
            (STATUS_PANIC, message)
        }
    };
    // SAFETY: as the caller promises. Without a place for the text, the status has to do.
    unsafe { write_text(text, &reason) };
    status
}

fn message(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().copied();
    let text = text.or_else(|| panic.downcast_ref::<String>().map(String::as_str));
    text.unwrap_or("(a value that is no text)").to_owned()
}

/// Drops what a panic carried, which may panic itself; what that carries is leaked, or there would be no end.
fn discard(panic: Box<dyn Any + Send>) {
    if let Err(again) = catch_unwind(AssertUnwindSafe(|| drop(panic))) {
        std::mem::forget(again);
    }
}

enum Fit {
    Whole,
    Cut,
    Nowhere,
}

/// Writes a text, or what fits of it. It is cut at a character and filled up with blanks, so that the buffer is UTF-8
/// to its end.
///
/// # Safety
/// `text` is null, or the caller's for this call.
unsafe fn write_text(text: *mut Text, content: &str) -> Fit {
    // SAFETY: as the caller promises.
    let Some(text) = (unsafe { text.as_mut() }) else { return Fit::Nowhere };
    text.size = content.len() as u64;
    let capacity = if text.data.is_null() { 0 } else { usize::try_from(text.capacity).unwrap_or(usize::MAX) };
    let length = content.floor_char_boundary(capacity);
    // SAFETY: a null pointer takes no bytes, another one `capacity`; the blanks are three bytes at most.
    unsafe {
        text.data.copy_from_nonoverlapping(content.as_ptr(), length);
        if length < content.len() {
            text.data.add(length).write_bytes(b' ', capacity - length);
        }
    }
    if length == content.len() { Fit::Whole } else { Fit::Cut }
}
