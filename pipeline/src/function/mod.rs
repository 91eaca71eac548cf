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
use crate::manifest::{Command, Service};
use crate::store::{Store, StoreError};

pub(crate) use mask::{SALT, target};
pub use server::serve;

/// The variable with the policy of a dataset, TOML.
pub const POLICY: &str = "BATON_POLICY";

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

/// Checks what the variables of a function say, before an event comes: a rule or policy that is none is found here, and not after a
/// training. `variable` gives the value of one that is set.
///
/// # Errors
/// What is wrong, with the variable's name.
pub fn check(name: &str, variable: impl Fn(&str) -> Option<String>) -> Result<(), String> {
    match name {
        "evaluate" => variable(evaluate::RULE).map_or(Ok(()), |text| evaluate::check_rule(&text)),
        "validate" | "mask" => variable(POLICY).map_or(Ok(()), |text| {
            baton_data::Policy::parse(&text).map(|_| ()).map_err(|error| format!("{POLICY}: {error}"))
        }),
        _ => Ok(()),
    }
}

/// What is wrong with the settings of a set's own functions, in words.
pub fn faults(services: &[Service]) -> Vec<String> {
    let of = |service: &Service| match &service.run.command {
        Command::BuiltIn(words) => {
            let fault = check(words.get(1)?, |name| service.run.env.get(name).cloned()).err()?;
            Some(format!("Service {}: {fault}", service.name))
        }
        Command::Program(_) => None,
    };
    services.iter().filter_map(of).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_are_checked_before_an_event_comes() {
        let told = |name: &str, variable: &str, text: &str| {
            check(name, |asked| (asked == variable).then(|| text.to_owned())).err().unwrap_or_default()
        };
        for rule in ["metric = \"acuracy\"", "suprise = 1", "margin = ", "max_rows = 0"] {
            assert!(told("evaluate", "BATON_RULE", rule).contains("BATON_RULE"), "{rule}");
        }
        for function in ["validate", "mask"] {
            assert!(told(function, "BATON_POLICY", "holdout = 3").contains("BATON_POLICY"));
        }
        assert_eq!(told("evaluate", "BATON_RULE", "at_least = 0.9"), "");
        assert_eq!(told("validate", "BATON_POLICY", "label = \"y\""), "");
        assert_eq!(told("deploy", "BATON_RULE", "nonsense"), "", "none of its variables");
        assert_eq!(check("evaluate", |_| None), Ok(()));
    }

    #[test]
    fn settings_that_are_none_are_told_of_their_service() {
        let folder = tempfile::tempdir().expect("a folder");
        let file = folder.path().join("pipeline.yaml");
        let service = |name: &str, variable: &str, value: &str| {
            format!(
                "apiVersion: serving.knative.dev/v1\nkind: Service\nmetadata: {{name: {name}}}\nspec:\n  template:\n    spec:\n      containers:\n        \
                 - {{image: baton, args: [fn, {name}], env: [{{name: {variable}, value: '{value}'}}]}}\n---\n"
            )
        };
        let told = |value: &str| {
            let text = service("evaluate", "BATON_RULE", value)
                + &service("validate", "BATON_POLICY", "holdout = 3");
            std::fs::write(&file, text).expect("written");
            faults(&crate::manifest::inspect(std::slice::from_ref(&file)).expect("a set").pipeline.services)
        };
        let both = told("at_leats = 0.5");
        assert!(both[0].contains("Service evaluate") && both[0].contains("at_leats"), "{both:?}");
        assert_eq!(both.len(), 2, "{both:?}");
        assert_eq!(told("at_least = 0.5").len(), 1);
    }
}
