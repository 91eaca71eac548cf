//! From a request to an answer: the one [`Inference::infer`], and the codecs around it.
//!
//! A codec turns its protocol's bytes into named tensors and the answer back; it holds no logic of its own. `oip` is
//! the Open Inference Protocol over REST and gRPC. Typed services from contracts get a room beside it.

mod body;
mod compute;
mod infer;
pub mod oip;

pub use infer::{Address, Answer, Inference, Inputs, Target};
