//! The errors that leave Baton: one closed list of codes ([`Code`]), one value that carries a code with its text
//! ([`Error`]), one place that turns it into HTTP and gRPC ([`wire`]).
//!
//! Never here: the reasons themselves. Each area says what was expected and what came, with its own error type or
//! directly with the constructors below; this room only fixes what the outside may rely on.
//!
//! `Error` is one flat value, not an enum per area: what a caller can react to is the code, and a code is the same
//! whichever area found the fault. Areas below the transports keep typed errors of their own where code decides on
//! them (`store::StoreError`, `engine::EngineError`).

mod code;
pub mod extract;
pub mod wire;

use std::borrow::Cow;
use std::fmt;

pub use code::{Code, Origin};

/// Bytes of a text.
const MAX_TEXT: usize = 2_000;

/// Result with [`Error`].
pub type Result<T> = std::result::Result<T, Error>;

/// A failure with a stable code and a text that may be shown to the caller.
///
/// The text is lower case, names the operation and the thing, says what was expected and what came; it never holds a
/// path of the server, a token, or a library's own message. The internal cause goes to the log only.
#[derive(Debug)]
pub struct Error {
    code: Code,
    text: Cow<'static, str>,
    details: Option<Box<serde_json::Value>>,
    cause: Option<Box<dyn std::error::Error + Send + Sync>>,
}

impl Error {
    /// An error with the text that the caller is shown.
    pub fn new(code: Code, text: impl Into<Cow<'static, str>>) -> Self {
        let mut text = text.into();
        // Names and values of the request are quoted in texts; none may fill a log or an answer.
        if text.len() > MAX_TEXT {
            let end = (0..=MAX_TEXT).rev().find(|end| text.is_char_boundary(*end)).unwrap_or(0);
            text = format!("{}...", text.get(..end).unwrap_or_default()).into();
        }
        Self { code, text, details: None, cause: None }
    }

    /// The same failure with one more thing that the caller can do about it.
    #[must_use]
    pub fn with_hint(mut self, hint: &str) -> Self {
        self.text = format!("{}; {hint}", self.text).into();
        self
    }

    /// Machine-readable facts (a list of differences, say), sent beside the text.
    #[must_use]
    pub fn with_details(mut self, details: serde_json::Value) -> Self {
        self.details = Some(Box::new(details));
        self
    }

    /// The internal cause: logged, never sent.
    #[must_use]
    pub fn caused_by(mut self, cause: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Self {
        self.cause = Some(cause.into());
        self
    }

    /// The stable code.
    pub fn code(&self) -> Code {
        self.code
    }

    /// The text for the caller.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// Machine-readable facts, if any.
    pub fn details(&self) -> Option<&serde_json::Value> {
        self.details.as_deref()
    }

    /// The chain of internal causes in one line, for the log.
    pub fn cause_chain(&self) -> Option<String> {
        self.cause.as_ref().map(|cause| chain(cause.as_ref()))
    }
}

fn causes(error: &dyn std::error::Error) -> impl Iterator<Item = &dyn std::error::Error> {
    std::iter::successors(error.source(), |cause| cause.source())
}

/// An error and its causes in one line.
pub fn chain(error: &dyn std::error::Error) -> String {
    causes(error).fold(error.to_string(), |text, cause| format!("{text}: {cause}"))
}

/// The innermost cause: of a connection that fails, what a person wants to know.
pub fn root(error: &dyn std::error::Error) -> String {
    causes(error).last().unwrap_or(error).to_string()
}

impl fmt::Display for Error {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}: {}", self.code.id(), self.text)
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.cause.as_deref().map(|cause| cause as _)
    }
}
