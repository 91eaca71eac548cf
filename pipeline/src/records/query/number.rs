//! Numbers as JSON has them: whole ones are compared exactly, also those that a double cannot hold.

use std::cmp::Ordering;
use std::fmt;

use serde_json::Value;

/// A finite number.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Number {
    /// Within what JSON's readers hold as whole: -2^63 to 2^64 - 1.
    Whole(i128),
    Float(f64),
}

impl Number {
    /// Of text that is written like one.
    pub(super) fn parse(text: &str) -> Option<Self> {
        let whole = text.parse::<i128>().ok();
        match whole.filter(|whole| (i128::from(i64::MIN)..=i128::from(u64::MAX)).contains(whole)) {
            Some(whole) => Some(Self::Whole(whole)),
            None => text.parse().ok().filter(|float: &f64| float.is_finite()).map(Self::Float),
        }
    }

    /// Of a number, or of text that is written like one (a version "3", a parameter "0.1").
    pub(super) fn of(value: &Value) -> Option<Self> {
        match value {
            Value::Number(number) => {
                let whole = number.as_i64().map(i128::from).or(number.as_u64().map(i128::from));
                whole.map(Self::Whole).or(number.as_f64().map(Self::Float))
            }
            Value::String(text) => Self::parse(text.trim()),
            _ => None,
        }
    }

    /// As JSON has it.
    pub(super) fn json(self) -> Value {
        match self {
            Self::Whole(whole) => {
                let signed = i64::try_from(whole).map(Value::from);
                signed.or_else(|_| u64::try_from(whole).map(Value::from)).unwrap_or(Value::Null)
            }
            Self::Float(float) => float.into(),
        }
    }

    /// A total order: no number here is NaN, and zero has no sign.
    pub(super) fn compare(self, other: Self) -> Ordering {
        match (self, other) {
            (Self::Whole(left), Self::Whole(right)) => left.cmp(&right),
            (Self::Float(left), Self::Float(right)) => left.partial_cmp(&right).unwrap_or(Ordering::Equal),
            (Self::Whole(left), Self::Float(right)) => compare(left, right),
            (Self::Float(left), Self::Whole(right)) => compare(right, left).reverse(),
        }
    }
}

fn compare(whole: i128, float: f64) -> Ordering {
    // `as` saturates, far outside of what a whole number may be.
    let rest = float - float.trunc();
    whole.cmp(&(float.trunc() as i128)).then_with(|| 0.0.partial_cmp(&rest).unwrap_or(Ordering::Equal))
}

impl fmt::Display for Number {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Whole(whole) => write!(formatter, "{whole}"),
            Self::Float(float) => write!(formatter, "{float}"),
        }
    }
}
