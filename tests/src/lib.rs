//! The harness of the black-box tests: starts the real binary, pushes real models, counts what was answered.
//!
//! Knows the product only as its users do: by its command line, its ports and its protocols.

pub mod ledger;
pub mod native;
pub mod onnx;
pub mod pipeline;
pub mod runner;

pub use ledger::{Ledger, Load};
pub use pipeline::{Pipeline, Service, event};
pub use runner::{Options, Runner};

/// How much longer than in CI a run is to be: `BATON_SOAK=20` makes loads twenty times as long.
pub fn soak_factor() -> u32 {
    std::env::var("BATON_SOAK").ok().and_then(|factor| factor.parse().ok()).unwrap_or(1)
}
