//! Does a run match, and what is it sorted by. Two-valued: a comparison with what a run lacks does not hold, and its negation does.

use std::cmp::Ordering;

use serde_json::Value;

use super::field::{Field, Values};
use super::number::Number;
use crate::records::seen;

/// A checked condition.
#[derive(Debug, Clone)]
pub(super) enum Condition {
    All(Vec<Condition>),
    Any(Vec<Condition>),
    Not(Box<Condition>),
    Compare(Field, Operator, Literal),
    In(Field, Vec<Literal>),
    Contains(Field, Sought),
    Missing(Field),
}

/// What is looked for in a value.
#[derive(Debug, Clone)]
pub(super) struct Sought {
    folded: String,
    /// If it is a number, that as documents write it: `0.0000001` is `1e-7` there.
    number: Option<String>,
}

impl Sought {
    pub(super) fn new(written: &str, number: Option<Number>) -> Self {
        Self { folded: folded(written), number: number.map(|number| number.json().to_string()) }
    }
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
    Number(Number),
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
        Condition::Contains(field, sought) => {
            value(field, values).is_some_and(|value| contains(value, sought))
        }
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
        (Literal::Number(number), value) => Some(Number::of(value)?.compare(*number)),
        (Literal::Text(text), Value::String(value)) => Some(value.as_str().cmp(text)),
        (Literal::Text(text), Value::Number(_)) => {
            Some(Number::of(value)?.compare(Number::parse(text.trim())?))
        }
        (Literal::Bool(flag), Value::Bool(value)) => Some(value.cmp(flag)),
        (Literal::Time(first, last), Value::String(value)) => {
            let time = seen::time(value)?;
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

/// Any text in the value, however deep, without regard to case.
fn contains(value: &Value, sought: &Sought) -> bool {
    match value {
        Value::String(value) => folded(value).contains(&sought.folded),
        Value::Array(list) => list.iter().any(|value| contains(value, sought)),
        Value::Object(object) => object.values().any(|value| contains(value, sought)),
        Value::Number(number) => {
            let number = number.to_string();
            number.contains(&sought.folded) || sought.number.as_ref().is_some_and(|one| number.contains(one))
        }
        Value::Bool(_) | Value::Null => false,
    }
}

/// Without regard to case. The Greek sigma has two small letters; which one stands for a capital depends on what is around it, and
/// around a part of a word is something else.
fn folded(text: &str) -> String {
    text.to_lowercase().replace('ς', "σ")
}

/// What runs are sorted by: numbers and times before texts.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Key {
    Number(Number),
    Text(String),
}

impl Key {
    pub(super) fn compare(&self, other: &Self) -> Ordering {
        match (self, other) {
            (Key::Number(left), Key::Number(right)) => left.compare(*right),
            (Key::Text(left), Key::Text(right)) => left.cmp(right),
            (Key::Number(_), Key::Text(_)) => Ordering::Less,
            (Key::Text(_), Key::Number(_)) => Ordering::Greater,
        }
    }
}

/// `None` for what has no order: absent, lists, groups.
pub(super) fn key(field: &Field, values: &[Option<Value>]) -> Option<Key> {
    match value(field, values)? {
        Value::String(text) if field.values == Values::Time => {
            Some(Key::Number(Number::Whole(seen::time(text)?.into())))
        }
        Value::String(text) => Some(match Number::parse(text.trim()) {
            Some(number) => Key::Number(number),
            None => Key::Text(text.clone()),
        }),
        Value::Bool(flag) => Some(Key::Number(Number::Whole((*flag).into()))),
        value => Number::of(value).map(Key::Number),
    }
}
