//! Wire types of the protocols that Baton speaks, generated at build time from the `.proto` files of this folder.
//!
//! Nothing but generated code lives here. The field numbers are those of the Open Inference Protocol v2 with
//! Triton's extensions, so that its clients work unchanged.

/// Open Inference Protocol v2: package `inference`, service `GRPCInferenceService`.
#[allow(missing_debug_implementations, unreachable_pub, clippy::all, reason = "generated code")]
pub mod inference {
    tonic::include_proto!("inference");

    /// The files that the types come from, for reflection.
    pub const FILE_DESCRIPTOR_SET: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/descriptors.bin"));
}

/// What the server and its workers say to each other: package `baton.worker`.
#[allow(missing_debug_implementations, unreachable_pub, clippy::all, reason = "generated code")]
pub mod worker {
    tonic::include_proto!("baton.worker");
}
