//! From a request to an answer: the one [`Inference::infer`], and the codecs around it.
//!
//! A codec turns its protocol's bytes into named tensors and the answer back; it holds no logic of its own. `oip` is
//! the Open Inference Protocol over REST and gRPC, `typed` are the services of contracts. `grpc` joins all that is
//! called over gRPC, among them `reflection` and `health`.

mod body;
mod compute;
mod grpc;
mod headers;
mod health;
mod infer;
pub mod oip;
mod reflection;
pub mod typed;

pub use grpc::Grpc;
pub use infer::{Address, Answer, Inference, Inputs, Target, Wanted};
