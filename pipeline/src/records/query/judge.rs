//! Does a run match, and what is it sorted by. Two-valued: a comparison with what a run lacks does not hold, and its negation does.

use std::cmp::Ordering;

use serde_json::Value;

use super::field::{Field, Values};
use crate::records::view;

/// A checked condition.
#[derive(Debug, Clone)]
pub(super) enum Condition {
    All(Vec<Condition>),
    Any(Vec<Condition>),
    Not(Box<Condition>),
    Compare(Field, Operator, Literal),
    In(Field, Vec<Literal>),
    /// In lower case.
    Contains(Field, String),
    Missing(Field),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Operator {
    Equal,
    NotEqual,
    Less,
    AtMost,
    Greater,
    AtLeast,
}

#[derive(Debug, Clone, PartialEq)]
pub(super) enum Literal {
    Number(f64),
    Text(String),
    Bool(bool),
    /// Microseconds since 1970, the first and the last: a day is all of its moments.
    Time(i64, i64),
}

impl Operator {
    /// `None`: the two cannot be compared.
    fn holds(self, order: Option<Ordering>) -> bool {
        match self {
            Operator::Equal => order == Some(Ordering::Equal),
            Operator::NotEqual => order != Some(Ordering::Equal),
            Operator::Less => order == Some(Ordering::Less),
            Operator::AtMost => order.is_some_and(Ordering::is_le),
            Operator::Greater => order == Some(Ordering::Greater),
            Operator::AtLeast => order.is_some_and(Ordering::is_ge),
        }
    }
}

/// `values` by the slots of the condition's fields.
pub(super) fn holds(condition: &Condition, values: &[Option<Value>]) -> bool {
    match condition {
        Condition::All(all) => all.iter().all(|one| holds(one, values)),
        Condition::Any(any) => any.iter().any(|one| holds(one, values)),
        Condition::Not(inner) => !holds(inner, values),
        Condition::Compare(field, operator, literal) => {
            operator.holds(value(field, values).and_then(|value| compare(value, literal)))
        }
        Condition::In(field, literals) => value(field, values)
            .is_some_and(|value| literals.iter().any(|one| compare(value, one) == Some(Ordering::Equal))),
        Condition::Contains(field, text) => value(field, values).is_some_and(|value| contains(value, text)),
        Condition::Missing(field) => value(field, values).is_none(),
    }
}

/// The value of a field, from the first place that has one.
pub(super) fn value<'a>(field: &Field, values: &'a [Option<Value>]) -> Option<&'a Value> {
    field.slots.iter().find_map(|&slot| values.get(slot)?.as_ref())
}

/// Text that is written like a number is compared with numbers as one (a version "3", a parameter "0.1").
fn compare(value: &Value, literal: &Literal) -> Option<Ordering> {
    match (literal, value) {
        (Literal::Number(number), value) => as_number(value)?.partial_cmp(number),
        (Literal::Text(text), Value::String(value)) => Some(value.as_str().cmp(text)),
        (Literal::Text(text), Value::Number(value)) => {
            value.as_f64()?.partial_cmp(&text.trim().parse().ok()?)
        }
        (Literal::Bool(flag), Value::Bool(value)) => Some(value.cmp(flag)),
        (Literal::Time(first, last), Value::String(value)) => {
            let time = view::time(value)?;
            Some(if time < *first {
                Ordering::Less
            } else if time > *last {
                Ordering::Greater
            } else {
                Ordering::Equal
            })
        }
        _ => None,
    }
}

fn as_number(value: &Value) -> Option<f64> {
    match value {
        Value::Number(number) => number.as_f64(),
        Value::String(text) => text.trim().parse().ok().filter(|number: &f64| number.is_finite()),
        _ => None,
    }
}

/// Any text in the value, however deep, without regard to case.
fn contains(value: &Value, text: &str) -> bool {
    match value {
        Value::String(value) => value.to_lowercase().contains(text),
        Value::Array(list) => list.iter().any(|value| contains(value, text)),
        Value::Object(object) => object.values().any(|value| contains(value, text)),
        Value::Number(number) => number.to_string().contains(text),
        Value::Bool(_) | Value::Null => false,
    }
}

/// What runs are sorted by: numbers and times before texts.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Key {
    Number(f64),
    Text(String),
}

impl Key {
    pub(super) fn compare(&self, other: &Self) -> Ordering {
        match (self, other) {
            (Key::Number(left), Key::Number(right)) => left.total_cmp(right),
            (Key::Text(left), Key::Text(right)) => left.cmp(right),
            (Key::Number(_), Key::Text(_)) => Ordering::Less,
            (Key::Text(_), Key::Number(_)) => Ordering::Greater,
        }
    }
}

/// `None` for what has no order: absent, lists, groups.
pub(super) fn key(field: &Field, values: &[Option<Value>]) -> Option<Key> {
    match value(field, values)? {
        // Microseconds of this age are exact in a double.
        Value::String(text) if field.values == Values::Time => Some(Key::Number(view::time(text)? as f64)),
        Value::String(text) => Some(match as_number(&Value::String(text.clone())) {
            Some(number) => Key::Number(number),
            None => Key::Text(text.clone()),
        }),
        Value::Number(number) => number.as_f64().map(Key::Number),
        Value::Bool(flag) => Some(Key::Number(f64::from(u8::from(*flag)))),
        _ => None,
    }
}
