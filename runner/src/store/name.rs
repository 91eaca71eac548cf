//! Names and numbers from outside. The only parsers of model names and version numbers.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::error::{Code, Error};

const MAX_LENGTH: usize = 63;

/// A model's name: `[a-z0-9][a-z0-9._-]{0,62}`, without `..`. Safe as a folder name by construction.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ModelName(Arc<str>);

impl ModelName {
    /// The name.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for ModelName {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        let first =
            text.bytes().next().is_some_and(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit());
        let all = text.bytes().all(|byte| {
            byte.is_ascii_lowercase() || byte.is_ascii_digit() || matches!(byte, b'.' | b'_' | b'-')
        });
        if first && all && text.len() <= MAX_LENGTH && !text.contains("..") {
            return Ok(Self(text.into()));
        }
        Err(Error::new(
            Code::BadName,
            "a model name is 1 to 63 characters of a-z, 0-9, '.', '_' and '-', begins with a letter or digit, and has \
             no '..'",
        ))
    }
}

impl fmt::Display for ModelName {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}

impl fmt::Debug for ModelName {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.0, formatter)
    }
}

/// Looked up by the text of a request's path without making a name of it first.
impl std::borrow::Borrow<str> for ModelName {
    fn borrow(&self) -> &str {
        &self.0
    }
}

/// A version's number: 1, 2, 3 ... Never reused within a model.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct VersionNumber(u64);

impl VersionNumber {
    /// The number before the first version.
    pub const NONE: VersionNumber = VersionNumber(0);

    /// The number after this one.
    #[must_use]
    pub fn next(self) -> Self {
        Self(self.0 + 1)
    }
}

impl FromStr for VersionNumber {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        // `parse` alone would take "+1" and "01".
        match text.parse() {
            Ok(number) if number > 0 && text.starts_with(|first: char| ('1'..='9').contains(&first)) => {
                Ok(Self(number))
            }
            _ => Err(Error::new(Code::VersionUnknown, "a version is a number: 1, 2, 3 ...")),
        }
    }
}

impl fmt::Display for VersionNumber {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(formatter)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_safe_as_folders() {
        for name in ["iris", "a", "0", "resnet-50_v1.5", &"a".repeat(63)] {
            assert_eq!(name.parse::<ModelName>().expect(name).as_str(), name);
        }
        for name in [
            "",
            ".",
            "..",
            "../x",
            "a..b",
            "a/b",
            "a\\b",
            "A",
            "ü",
            "ＡＢＣ",
            "-a",
            "_a",
            ".a",
            "a b",
            "a\0",
            "a%2fb",
            "\u{202e}a",
            "/abs",
            &"a".repeat(64),
            &"a".repeat(300),
        ] {
            assert!(name.parse::<ModelName>().is_err(), "{name:?}");
        }
    }

    #[test]
    fn versions_are_plain_numbers() {
        assert_eq!("12".parse::<VersionNumber>().expect("a number").to_string(), "12");
        for text in ["", "0", "01", "+1", "-1", "1.0", "latest", "99999999999999999999"] {
            assert!(text.parse::<VersionNumber>().is_err(), "{text:?}");
        }
    }
}
