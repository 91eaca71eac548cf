//! The functions of this binary (`baton fn NAME`), and the server in front of them.
//!
//! A function is an async call from an event to at most one event. It holds nothing between calls: what it must remember is in
//! the store. The server is the same behind the local engine and behind Knative.

mod bundle;
mod cost;
mod deploy;
mod evaluate;
pub mod history;
mod mask;
mod runner;
mod server;
mod sweep;
pub mod validate;

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use crate::event::Event;
use crate::store::{Store, StoreError};

pub(crate) use mask::{SALT, target};
pub use server::serve;

/// What every call may use.
#[derive(Debug, Clone)]
pub struct Context {
    /// The function's name: `K_SERVICE`, or what it is called on the command line.
    pub name: String,
    pub store: Store,
    /// Admin address of the runner.
    pub server: String,
    pub token: Option<String>,
    /// The text of the dataset's policy, TOML; empty if there is none.
    pub policy: String,
}

/// Why a call gave no answer.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    /// Answered as 503: deliver it again.
    #[error("{0}")]
    Later(String),
    /// Answered as 422: no use in delivering it again.
    #[error("{0}")]
    Never(String),
}

impl From<StoreError> for Failure {
    fn from(error: StoreError) -> Self {
        if error.is_transient() {
            Failure::Later(error.to_string())
        } else {
            Failure::Never(error.to_string())
        }
    }
}

/// One call: an event in, at most one event out (made with [`Event::reply`]).
pub type Call = Pin<Box<dyn Future<Output = Result<Option<Event>, Failure>> + Send>>;

/// A function.
pub type Function = fn(Arc<Context>, Event) -> Call;

/// The names of all functions.
pub const NAMES: [&str; 6] = ["validate", "mask", "evaluate", "deploy", "history", "sweep"];

/// The function with this name.
pub fn named(name: &str) -> Option<Function> {
    match name {
        "evaluate" => Some(evaluate::evaluate),
        "deploy" => Some(deploy::deploy),
        "history" => Some(history::history),
        "sweep" => Some(sweep::sweep),
        "mask" => Some(mask::call),
        "validate" => Some(validate::call),
        _ => None,
    }
}
