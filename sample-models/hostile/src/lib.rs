//! What the sinners in Rust share; `../c/hostile.h` is the same in C.
//!
//! They are made with the SDK, whose promise is tested with them: no panic leaves the library.

pub use baton_model_abi::export_model;
use baton_model_abi::{Datatype, Error, Inputs, Model, Outputs, Signature};

pub trait Sinner: Send + Sync + 'static {
    fn create() -> Self;

    /// Called where the first element of x is 1000 or more, before the good answer.
    fn sin(&self) {}
}

/// The model of a [`Sinner`]: y = 2x.
pub struct Twice<S>(S);

impl<S: Sinner> Model for Twice<S> {
    fn create() -> Result<Self, Error> {
        Ok(Self(S::create()))
    }

    fn signature(&self) -> Signature {
        Signature::new().input("x", Datatype::Fp32, &[-1]).output("y", Datatype::Fp32, &[-1])
    }

    fn run(&self, inputs: &Inputs<'_>, outputs: &mut Outputs<'_>) -> Result<(), Error> {
        let (shape, x) = inputs.f32("x")?;
        if x.first().is_some_and(|first| *first >= 1000.0) {
            self.0.sin();
        }
        let y: Vec<f32> = x.iter().map(|value| 2.0 * value).collect();
        outputs.put("y", shape, &y)
    }
}
