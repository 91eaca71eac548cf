//! Baton: a hot-swappable model runner.
//!
//! Rooms, lower ones first; each may use only those before it (`tests/tidy.rs` watches):
//! `tensor`, `error`, `config`, `failpoint` / `bundle`, `telemetry` / `engine`, `store` / `contract` / `requestlog` / `model` / `auth`,
//! `inference`, `admin` / `lifecycle` / `app`. The command line (`cli`) is a client of the admin API and sees nothing
//! but its wire types. `ARCHITECTURE.md` has the map and the invariants.

pub mod admin;
pub mod app;
pub mod auth;
pub mod bundle;
pub mod cli;
pub mod config;
pub mod contract;
pub mod engine;
pub mod error;
pub mod failpoint;
pub mod inference;
pub mod lifecycle;
pub mod model;
pub mod requestlog;
pub mod store;
pub mod telemetry;
pub mod tensor;
