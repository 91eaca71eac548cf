//! Typed services: the methods of contracts, as codecs around [`Inference::infer`].
//!
//! `call` is what all forms have in common: a method found in the snapshot, requests to tensors, tensors to answers.
//! `grpc`, `http` and `csv` carry messages. A call keeps the version that it found to its end, streams included: its
//! messages belong to that version's contract.
//!
//! [`Inference::infer`]: super::Inference::infer

mod call;
mod csv;
mod grpc;
mod http;

pub(super) use grpc::serve;
pub use http::fallback;
