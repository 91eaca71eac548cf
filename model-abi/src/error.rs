//! Why a model did not answer.

use std::fmt;

use crate::layout::{STATUS_FAILED, STATUS_INVALID_INPUT};

/// A refusal or a failure, with a text for the caller.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Error {
    status: i32,
    text: String,
}

impl Error {
    /// The caller's input is not what the model takes; Baton answers INPUT_REFUSED (400). The caller reads the text:
    /// say what was expected and what came.
    pub fn invalid_input(text: impl fmt::Display) -> Self {
        Self { status: STATUS_INVALID_INPUT, text: text.to_string() }
    }

    /// The model cannot answer, and the input is not to blame; Baton answers MODEL_FAILED (500).
    ///
    /// Takes any error: `std::fs::read(path).map_err(Error::failed)?`.
    pub fn failed(text: impl fmt::Display) -> Self {
        Self { status: STATUS_FAILED, text: text.to_string() }
    }

    pub(crate) fn status(&self) -> i32 {
        self.status
    }

    pub(crate) fn text(&self) -> &str {
        &self.text
    }
}

impl fmt::Display for Error {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(&self.text)
    }
}

impl std::error::Error for Error {}
