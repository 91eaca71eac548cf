//! The Open Inference Protocol v2 with Triton's extensions, over REST and gRPC on one port.
//!
//! `rest` and `grpc` are the two codecs, `json` and `binary` the forms of a REST body, `describe` what both tell about
//! models. Statistics count per model over all generations, so that no swap makes a counter go backwards.

mod binary;
mod describe;
mod grpc;
mod json;
mod rest;

use super::infer::Inference;

pub use grpc::{GrpcService, OipGrpc, own_status};
pub use rest::router;

/// Tells whether the server is ready.
pub type Ready = std::sync::Arc<dyn Fn(&Inference) -> bool + Send + Sync>;

/// May this port change what is served?
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RepositoryControl {
    /// The data port: models are only looked at.
    ReadOnly,
    /// The admin port.
    Allowed,
}

/// The protocol's extensions that are implemented; clients branch on this list.
const EXTENSIONS: [&str; 4] = ["binary_tensor_data", "parameters", "statistics", "model_configuration"];

/// The name of the server in its metadata.
const SERVER_NAME: &str = "baton";
