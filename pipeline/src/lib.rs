//! The pipeline: light functions outside the runner, and the engine that delivers events to them on one machine.
//!
//! Rooms, lower ones first; each may use only those before it:
//! `event`, `store`, `signal` / `manifest`, `records` / `function` / `engine` / `cli`. What they agree on with functions in other
//! languages is in `docs/pipeline-reference.md`. Nothing here knows the inside of the runner but its engines, its
//! contracts and its error texts.

#![forbid(unsafe_code)]

pub mod cli;
pub mod engine;
pub mod event;
pub mod feedback;
pub mod function;
pub mod manifest;
pub mod records;
mod signal;
pub mod store;
pub mod submit;
