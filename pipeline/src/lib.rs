//! The pipeline: light functions outside the runner, and the engine that delivers events to them on one machine.
//!
//! Rooms, lower ones first; each may use only those before it:
//! `event`, `store`, `server` / `manifest`, `records`, `submit` / `feedback`, `function` / `engine` / `cli`
//! (`tests/tests/tidy.rs` watches). What they agree on with functions in other languages is in
//! `docs/pipeline-reference.md`. Of the runner's inside only its engines, contracts and error texts are used here, of the
//! rest its wire types.

#![forbid(unsafe_code)]

pub mod cli;
pub mod engine;
pub mod event;
pub mod feedback;
pub mod function;
pub mod manifest;
pub mod records;
mod server;
pub mod store;
pub mod submit;
