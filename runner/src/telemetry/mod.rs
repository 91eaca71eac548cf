//! Logs and metrics. Knows no transport; every metric's name stands in [`metrics`].

pub mod log;
pub mod metrics;

pub use metrics::{Metrics, ModelMetrics, Phase, RequestLogMetrics};
