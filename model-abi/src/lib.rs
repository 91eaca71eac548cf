//! Native models for Baton: shared libraries that it loads and swaps while it serves. `docs/native-models.md` tells the
//! whole story.
//!
//! Implement [`Model`], export it with [`export_model!`], build a `cdylib`, push the library:
//!
//! ```no_run
//! use baton_model_abi::{Datatype, Error, Inputs, Model, Outputs, Signature, export_model};
//!
//! struct Twice;
//!
//! impl Model for Twice {
//!     fn create() -> Result<Self, Error> {
//!         Ok(Self)
//!     }
//!
//!     fn signature(&self) -> Signature {
//!         Signature::new().input("x", Datatype::Fp32, &[-1]).output("y", Datatype::Fp32, &[-1])
//!     }
//!
//!     fn run(&self, inputs: &Inputs<'_>, outputs: &mut Outputs<'_>) -> Result<(), Error> {
//!         let (shape, x) = inputs.f32("x")?;
//!         let y: Vec<f32> = x.iter().map(|value| 2.0 * value).collect();
//!         outputs.put("y", shape, &y)
//!     }
//! }
//!
//! export_model!(Twice);
//! # fn main() {}
//! ```
//!
//! What crosses the boundary is in [`layout`], and in C in `include/baton_model.h`. All unsafe code that a model needs
//! is here: in `tensor` and `export`, whose tests run under Miri as well:
//! `cargo +nightly miri test -p baton-model-abi --lib --test export`.

pub mod datatype;
pub mod error;
pub mod export;
pub mod layout;
pub mod note;
pub mod signature;
pub mod tensor;

pub use datatype::Datatype;
pub use error::Error;
pub use signature::Signature;
pub use tensor::{Element, Inputs, Outputs, Texts};

/// A model. One value serves all calls, from several threads at once.
///
/// Every call is guarded: a panic is answered as MODEL_PANIC, and the model is called again. So do not build with
/// `panic = "abort"`, where a panic ends the worker.
pub trait Model: Sized + Send + Sync + 'static {
    /// Makes the model, once after the library was loaded. What it needs (weights, tables) belongs into the library
    /// itself, by `include_bytes!`: there is nothing else beside it.
    ///
    /// # Errors
    /// Any text; the push fails with it.
    fn create() -> Result<Self, Error>;

    /// Names, datatypes and shapes. Asked for once; it must not change.
    fn signature(&self) -> Signature;

    /// Answers one call. Inputs are as the signature says, and every output has to be put. If the caller's buffers turn
    /// out too small it is called again with larger ones: it must answer the same then.
    ///
    /// # Errors
    /// [`Error::invalid_input`] if this model does not take this input, [`Error::failed`] if it cannot answer.
    fn run(&self, inputs: &Inputs<'_>, outputs: &mut Outputs<'_>) -> Result<(), Error>;
}
