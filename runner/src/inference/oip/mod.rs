//! The Open Inference Protocol v2 with Triton's extensions, over REST and gRPC on one port.
//!
//! `rest` and `grpc` are the two codecs, `json` and `binary` the forms of a REST body, `describe` what both tell about
//! models. Statistics count per model over all generations, so that no swap makes a counter go backwards.

mod binary;
mod describe;
mod grpc;
mod json;
mod rest;

use http::{HeaderMap, HeaderName, HeaderValue};

use super::infer::{Inference, Target};

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

const VERSION_HEADER: &str = "baton-model-version";
const GENERATION_HEADER: &str = "baton-generation";
const DIGEST_HEADER: &str = "baton-digest";
/// A bundle that must be the one that answers.
const REQUIRE_DIGEST_HEADER: &str = "baton-require-digest";

/// Who answered: version, generation, digest, as headers and as response parameters.
fn signed_by(target: &Target) -> [(&'static str, &str); 3] {
    let identity = &target.version().identity;
    [
        (VERSION_HEADER, &identity.number_text),
        (GENERATION_HEADER, &target.served().generation_text),
        (DIGEST_HEADER, &identity.digest_text),
    ]
}

fn sign_headers(target: &Target, headers: &mut HeaderMap) {
    for (name, value) in signed_by(target) {
        // Digits and hex digits are always a header value.
        if let Ok(value) = HeaderValue::from_str(value) {
            headers.insert(HeaderName::from_static(name), value);
        }
    }
}
