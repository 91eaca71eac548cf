//! Reading a tree so that nothing is ignored: whoever opens a mapping names the fields that it takes, and those that are left
//! are refused.

use std::cell::RefCell;
use std::path::Path;

use super::error::{Fault, Report};
use super::node::{Entry, Kind, Node, is_ambiguous};

/// The document that a value belongs to.
#[derive(Debug, Clone, Copy)]
pub(super) struct Origin<'a> {
    pub(super) file: &'a Path,
    /// Counted from 1.
    pub(super) document: usize,
    /// `Kind/name`.
    pub(super) object: &'a str,
    pub(super) report: &'a Report,
}

/// A value with its place.
#[derive(Debug, Clone)]
pub(super) struct Value<'a> {
    node: &'a Node,
    line: usize,
    path: String,
    origin: Origin<'a>,
}

/// The fields of a mapping while they are read.
pub(super) struct Fields<'v, 'a> {
    value: &'v Value<'a>,
    entries: &'a [Entry],
    asked: RefCell<Vec<&'static str>>,
}

impl<'a> Value<'a> {
    pub(super) fn root(node: &'a Node, origin: Origin<'a>) -> Self {
        Self { node, line: node.line, path: String::new(), origin }
    }

    /// The report, for what is no fault of one value.
    pub(super) fn report(&self) -> &'a Report {
        self.origin.report
    }

    /// `Kind/name` of the object.
    pub(super) fn object(&self) -> &'a str {
        self.origin.object
    }

    /// The manifest's file.
    pub(super) fn file(&self) -> &'a Path {
        self.origin.file
    }

    /// Refuses the value.
    pub(super) fn refuse(&self, text: impl Into<String>) {
        self.origin.report.fault(Fault {
            file: self.origin.file.to_owned(),
            document: Some(self.origin.document),
            line: (self.line > 0).then_some(self.line),
            object: self.origin.object.to_owned(),
            field: self.path.clone(),
            text: text.into(),
        });
    }

    fn wrong(&self, wanted: &str) {
        let found = match &self.node.kind {
            Kind::Null => "nothing",
            Kind::Flag(_) => "a boolean",
            Kind::Whole(_) | Kind::Number(_) => "a number",
            Kind::Text { .. } => "a text",
            Kind::List(_) => "a list",
            Kind::Map(_) => "a mapping",
        };
        self.refuse(format!("{found} where {wanted} belongs"));
    }

    /// A text. Words that a cluster's YAML 1.1 takes for something else must be quoted, as must numbers.
    pub(super) fn text(&self) -> Option<&'a str> {
        match &self.node.kind {
            Kind::Text { value, plain } if *plain && is_ambiguous(value) => {
                self.refuse(format!("a cluster reads {value} as a boolean or a number: write \"{value}\""));
                None
            }
            Kind::Text { value, .. } => Some(value),
            Kind::Flag(flag) => {
                self.refuse(format!("a boolean where a text belongs: write \"{flag}\""));
                None
            }
            Kind::Whole(number) => {
                self.refuse(format!("a number where a text belongs: write \"{number}\""));
                None
            }
            _ => {
                self.wrong("a text");
                None
            }
        }
    }

    /// A text that has something in it.
    pub(super) fn word(&self) -> Option<&'a str> {
        let text = self.text()?;
        if text.is_empty() {
            self.refuse("is empty");
            return None;
        }
        Some(text)
    }

    /// A text that `parse` accepts; it says what it wants otherwise.
    pub(super) fn parsed<T>(&self, parse: impl FnOnce(&str) -> Result<T, String>) -> Option<T> {
        let text = self.text()?;
        parse(text).map_err(|reason| self.refuse(reason)).ok()
    }

    /// A whole number within bounds.
    pub(super) fn whole(&self, least: u32, most: u32) -> Option<u32> {
        let Kind::Whole(number) = self.node.kind else {
            self.wrong("a whole number");
            return None;
        };
        match u32::try_from(number) {
            Ok(number) if (least..=most).contains(&number) => Some(number),
            _ => {
                self.refuse(format!("{number} is not from {least} to {most}"));
                None
            }
        }
    }

    pub(super) fn flag(&self) -> Option<bool> {
        match self.node.kind {
            Kind::Flag(flag) => Some(flag),
            _ => {
                self.wrong("true or false");
                None
            }
        }
    }

    /// A quantity may be written as a number or as a text.
    pub(super) fn number_or_text(&self) -> Option<String> {
        match &self.node.kind {
            Kind::Whole(number) => Some(number.to_string()),
            Kind::Number(number) => Some(number.to_string()),
            Kind::Text { value, .. } => Some(value.clone()),
            _ => {
                self.wrong("a number or a text");
                None
            }
        }
    }

    pub(super) fn list(&self) -> Option<Vec<Value<'a>>> {
        let Kind::List(items) = &self.node.kind else {
            self.wrong("a list");
            return None;
        };
        let items = items.iter().enumerate().map(|(index, node)| Value {
            node,
            line: if node.line > 0 { node.line } else { self.line },
            path: format!("{}[{index}]", self.path),
            origin: self.origin,
        });
        Some(items.collect())
    }

    /// The entries of a mapping whose keys are the user's.
    pub(super) fn free(&self) -> Option<Vec<(&'a str, Value<'a>)>> {
        let Kind::Map(entries) = &self.node.kind else {
            self.wrong("a mapping");
            return None;
        };
        Some(entries.iter().map(|entry| (entry.key.as_str(), self.child(entry))).collect())
    }

    /// Reads a mapping; every field that `read` does not ask for is refused.
    pub(super) fn fields<T>(&self, read: impl FnOnce(&Fields<'_, 'a>) -> Option<T>) -> Option<T> {
        let Kind::Map(entries) = &self.node.kind else {
            self.wrong("a mapping");
            return None;
        };
        let fields = Fields { value: self, entries, asked: RefCell::default() };
        let result = read(&fields);
        fields.refuse_rest();
        result
    }

    fn child(&self, entry: &'a Entry) -> Value<'a> {
        let key = &entry.key;
        let simple = key.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'-');
        let path = match (self.path.is_empty(), simple) {
            (true, true) => key.clone(),
            (false, true) => format!("{}.{key}", self.path),
            (_, false) => format!("{}[{key:?}]", self.path),
        };
        Value { node: &entry.value, line: entry.line, path, origin: self.origin }
    }
}

impl<'v, 'a> Fields<'v, 'a> {
    /// The mapping itself.
    pub(super) fn whole(&self) -> &'v Value<'a> {
        self.value
    }

    /// A field; `null` is as good as none, as in a cluster.
    pub(super) fn get(&self, key: &'static str) -> Option<Value<'a>> {
        let value = self.present(key)?;
        (value.node.kind != Kind::Null).then_some(value)
    }

    /// A field that must be there.
    pub(super) fn required(&self, key: &'static str) -> Option<Value<'a>> {
        let value = self.get(key);
        if value.is_none() {
            self.value.refuse(format!("the field {key} is missing"));
        }
        value
    }

    /// A field that means something in a cluster only, checked against what may stand there.
    pub(super) fn cluster_only(&self, key: &'static str, shape: &super::cluster::Shape) {
        if let Some(value) = self.get(key) {
            shape.check(&value);
        }
    }

    /// A field that a cluster fills in, as tools print it: only with nothing in it.
    pub(super) fn written_by_cluster(&self, key: &'static str) {
        if let Some(value) = self.get(key)
            && value.node.kind != Kind::Map(Vec::new())
        {
            value.refuse("is written by the cluster: remove it");
        }
    }

    /// Refuses a field with advice of its own.
    pub(super) fn refused(&self, key: &'static str, advice: &str) {
        if let Some(value) = self.present(key) {
            value.refuse(format!("is not implemented: {advice}"));
        }
    }

    /// A field, even if it is `null`.
    fn present(&self, key: &'static str) -> Option<Value<'a>> {
        let mut asked = self.asked.borrow_mut();
        if !asked.contains(&key) {
            asked.push(key);
        }
        self.entries.iter().find(|entry| entry.key == key).map(|entry| self.value.child(entry))
    }

    fn refuse_rest(&self) {
        let asked = self.asked.borrow();
        for entry in self.entries.iter().filter(|entry| !asked.contains(&entry.key.as_str())) {
            let known = asked.join(", ");
            self.value.child(entry).refuse(format!(
                "unknown, or not implemented by the local engine, and nothing is ignored: remove it, or put it into an \
                 overlay that only the cluster reads (known here: {known})"
            ));
        }
    }
}
