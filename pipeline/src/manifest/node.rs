//! YAML into a tree of plain values with line numbers, under limits.
//!
//! `yaml_serde::Value` knows no lines, and its guard against aliases counts jumps, not what they produce: a file of 1 MiB may
//! still become many GB. Hence a tree of our own: every value costs budget, and the line of a key follows from where its
//! borrowed text lies in the source.

use std::cell::Cell;
use std::collections::BTreeSet;
use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, Error, MapAccess, SeqAccess, Visitor};

/// Bytes that the values of one file may take, aliases followed.
const BUDGET: usize = 16 * 1024 * 1024;
const COST: usize = 32;
/// Open brackets, wherever they stand, texts included. The scanner's time grows with their number times the file's length, to
/// minutes for 1 MiB.
const MAX_BRACKETS: usize = 256;
/// YAML's own tags that change a value. The parser drops them without a word, so they are sought in the text.
const TAGS: [&str; 12] =
    ["binary", "bool", "float", "int", "map", "null", "omap", "pairs", "seq", "set", "str", "timestamp"];

/// A value and the line where it begins, 0 if that is not known.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Node {
    pub(super) line: usize,
    pub(super) kind: Kind,
}

#[derive(Debug, Clone, PartialEq)]
pub(super) enum Kind {
    Null,
    Flag(bool),
    Whole(i64),
    /// A fraction, or a number beyond 64 bits.
    Number(f64),
    /// `plain`: written on one line without quotes.
    Text {
        value: String,
        plain: bool,
    },
    List(Vec<Node>),
    /// In the order of the file; keys are unique.
    Map(Vec<Entry>),
}

#[derive(Debug, Clone, PartialEq)]
pub(super) struct Entry {
    pub(super) key: String,
    /// Of the key.
    pub(super) line: usize,
    pub(super) value: Node,
}

impl Node {
    pub(super) fn get(&self, key: &str) -> Option<&Node> {
        match &self.kind {
            Kind::Map(entries) => entries.iter().find(|entry| entry.key == key).map(|entry| &entry.value),
            _ => None,
        }
    }

    pub(super) fn text(&self) -> Option<&str> {
        match &self.kind {
            Kind::Text { value, .. } => Some(value),
            _ => None,
        }
    }
}

/// What the parser says of a document that is none.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Unreadable {
    pub(super) document: usize,
    pub(super) line: Option<usize>,
    pub(super) text: String,
}

/// The documents of a text, numbered from 1; empty ones are left out. Refused keys do not hide the next document; broken syntax
/// does.
pub(super) fn documents(text: &str) -> Vec<Result<(usize, Node), Unreadable>> {
    let unreadable = |line, text| vec![Err(Unreadable { document: 1, line: Some(line), text })];
    if let Some((line, symbol)) = control_character(text) {
        return unreadable(line, format!("the control character {symbol:?}"));
    }
    if let Some(line) = too_nested(text) {
        return unreadable(line, format!("more than {MAX_BRACKETS} brackets are open at a time"));
    }
    if let Some((line, tag)) = tagged(text) {
        return unreadable(line, format!("the tag {tag}: write the value without one"));
    }
    let source = Source::new(text);
    let mut result = Vec::new();
    for (index, document) in yaml_serde::Deserializer::from_str(text).enumerate() {
        match Build(&source).deserialize(document) {
            Ok(Node { kind: Kind::Null, .. }) => {}
            Ok(node) => result.push(Ok((index + 1, node))),
            Err(error) => {
                result.push(Err(Unreadable {
                    document: index + 1,
                    line: error.location().map(|location| location.line()),
                    text: error.to_string(),
                }));
                // After an error of its own the parser says the same for ever.
                if !source.key_refused.take() {
                    break;
                }
            }
        }
    }
    result
}

/// The first character that YAML does not allow, and its line, which the parser does not know.
fn control_character(text: &str) -> Option<(usize, char)> {
    let is_refused = |symbol: &char| symbol.is_control() && !matches!(symbol, '\t' | '\n' | '\r' | '\u{85}');
    (1..)
        .zip(text.split('\n'))
        .find_map(|(number, line)| line.chars().find(is_refused).map(|symbol| (number, symbol)))
}

/// The line where too many brackets are open.
fn too_nested(text: &str) -> Option<usize> {
    let mut open = 0_usize;
    lines(text)
        .find(|(_, line)| {
            line.bytes().any(|byte| {
                match byte {
                    b'[' | b'{' => open += 1,
                    b']' | b'}' => open = open.saturating_sub(1),
                    _ => {}
                }
                open > MAX_BRACKETS
            })
        })
        .map(|(number, _)| number)
}

/// The first tag of YAML's own, or what could give it another name, and its line.
fn tagged(text: &str) -> Option<(usize, &str)> {
    lines(text).find_map(|(number, line)| {
        if line.starts_with("%TAG") {
            return Some((number, "%TAG"));
        }
        let words = line.split(|symbol: char| symbol.is_whitespace() || "[]{},".contains(symbol));
        let is_tag = |word: &&str| {
            word.strip_prefix("!!").is_some_and(|name| TAGS.contains(&name))
                || word.starts_with("!<tag:yaml.org")
        };
        words
            .map(|word| word.rsplit(':').next().filter(|end| end.starts_with("!!")).unwrap_or(word))
            .find(is_tag)
            .map(|tag| (number, tag))
    })
}

/// The lines with their numbers, without those that are remarks to the end. YAML knows more ends of a line than `lines`.
fn lines(text: &str) -> impl Iterator<Item = (usize, &str)> {
    let is_remark = |line: &str| {
        line.trim_start().starts_with('#') && !line.contains(['\r', '\u{85}', '\u{2028}', '\u{2029}'])
    };
    (1..).zip(text.lines()).filter(move |(_, line)| !is_remark(line))
}

/// Plain words that YAML 1.2 reads as texts and a cluster's YAML 1.1 as booleans or numbers.
pub(super) fn is_ambiguous(text: &str) -> bool {
    let word = matches!(text.to_ascii_lowercase().as_str(), "y" | "n" | "yes" | "no" | "on" | "off");
    let digits = text.strip_prefix(['+', '-']).unwrap_or(text).replace('_', "").to_ascii_lowercase();
    let is_radix = |(prefix, radix): (&str, u32)| {
        digits
            .strip_prefix(prefix)
            .is_some_and(|rest: &str| !rest.is_empty() && rest.chars().all(|digit| digit.is_digit(radix)))
    };
    // Rust reads `inf` and `nan` as numbers too.
    let is_decimal = digits.starts_with(|first: char| first.is_ascii_digit() || first == '.')
        && digits.parse::<f64>().is_ok();
    let number = !text.starts_with('_')
        && (is_decimal || [("0x", 16), ("0o", 8), ("0b", 2)].into_iter().any(is_radix));
    word || number
}

/// The text with what is needed to find places in it, and the budget that is left.
struct Source<'de> {
    text: &'de str,
    starts: Vec<usize>,
    budget: Cell<usize>,
    /// The last error was about a key: the document's syntax is whole, and the next one can be read.
    key_refused: Cell<bool>,
}

impl<'de> Source<'de> {
    fn new(text: &'de str) -> Self {
        let starts = std::iter::once(0)
            .chain(text.bytes().enumerate().filter(|(_, byte)| *byte == b'\n').map(|(index, _)| index + 1))
            .collect();
        Self { text, starts, budget: Cell::new(BUDGET), key_refused: Cell::new(false) }
    }

    fn spend<E: Error>(&self, bytes: usize) -> Result<(), E> {
        match self.budget.get().checked_sub(bytes + COST) {
            Some(left) => {
                self.budget.set(left);
                Ok(())
            }
            None => Err(E::custom("its aliases unfold to more than 16 MiB: write the values out")),
        }
    }

    /// Where a text that the parser borrowed begins; `None` if it was copied (escapes, several lines).
    fn offset(&self, borrowed: &str) -> Option<usize> {
        let offset = (borrowed.as_ptr() as usize).checked_sub(self.text.as_ptr() as usize)?;
        (offset + borrowed.len() <= self.text.len()).then_some(offset)
    }

    /// The line of a text, 0 if it was copied, and whether it was written without quotes.
    fn place(&self, borrowed: &str) -> (usize, bool) {
        let Some(offset) = self.offset(borrowed) else { return (0, false) };
        let before = self.text[..offset].bytes().next_back();
        (self.line(offset), !matches!(before, Some(b'"' | b'\'')))
    }

    fn line(&self, offset: usize) -> usize {
        self.starts.partition_point(|start| *start <= offset)
    }
}

struct Build<'s, 'de>(&'s Source<'de>);

impl<'de> DeserializeSeed<'de> for Build<'_, 'de> {
    type Value = Node;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Node, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Build<'_, 'de> {
    fn scalar<E: Error>(&self, kind: Kind) -> Result<Node, E> {
        self.0.spend(0)?;
        Ok(Node { line: 0, kind })
    }
}

impl<'de> Visitor<'de> for Build<'_, 'de> {
    type Value = Node;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("a value without a tag")
    }

    fn visit_unit<E: Error>(self) -> Result<Node, E> {
        self.scalar(Kind::Null)
    }

    fn visit_none<E: Error>(self) -> Result<Node, E> {
        self.scalar(Kind::Null)
    }

    fn visit_bool<E: Error>(self, value: bool) -> Result<Node, E> {
        self.scalar(Kind::Flag(value))
    }

    fn visit_i64<E: Error>(self, value: i64) -> Result<Node, E> {
        self.scalar(Kind::Whole(value))
    }

    fn visit_u64<E: Error>(self, value: u64) -> Result<Node, E> {
        self.scalar(i64::try_from(value).map_or(Kind::Number(value as f64), Kind::Whole))
    }

    fn visit_i128<E: Error>(self, value: i128) -> Result<Node, E> {
        self.scalar(Kind::Number(value as f64))
    }

    fn visit_u128<E: Error>(self, value: u128) -> Result<Node, E> {
        self.scalar(Kind::Number(value as f64))
    }

    fn visit_f64<E: Error>(self, value: f64) -> Result<Node, E> {
        self.scalar(Kind::Number(value))
    }

    fn visit_str<E: Error>(self, value: &str) -> Result<Node, E> {
        self.0.spend(value.len())?;
        Ok(Node { line: 0, kind: Kind::Text { value: value.to_owned(), plain: false } })
    }

    fn visit_borrowed_str<E: Error>(self, value: &'de str) -> Result<Node, E> {
        self.0.spend(value.len())?;
        let (line, plain) = self.0.place(value);
        Ok(Node { line, kind: Kind::Text { value: value.to_owned(), plain } })
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut access: A) -> Result<Node, A::Error> {
        self.0.spend(0)?;
        let mut items = Vec::new();
        while let Some(item) = access.next_element_seed(Build(self.0))? {
            items.push(item);
        }
        Ok(Node { line: items.first().map_or(0, |item| item.line), kind: Kind::List(items) })
    }

    fn visit_map<A: MapAccess<'de>>(self, mut access: A) -> Result<Node, A::Error> {
        self.0.spend(0)?;
        let mut seen = BTreeSet::new();
        let mut entries: Vec<Entry> = Vec::new();
        while let Some((key, line)) = access.next_key_seed(Key { source: self.0, seen: &mut seen })? {
            entries.push(Entry { key, line, value: access.next_value_seed(Build(self.0))? });
        }
        Ok(Node { line: entries.first().map_or(0, |entry| entry.line), kind: Kind::Map(entries) })
    }
}

/// A key: a text that the mapping does not have yet. Refused here, so that the parser's error has the key's place.
struct Key<'s, 'de> {
    source: &'s Source<'de>,
    seen: &'s mut BTreeSet<String>,
}

impl<'de> DeserializeSeed<'de> for Key<'_, 'de> {
    type Value = (String, usize);

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Key<'_, 'de> {
    type Value = (String, usize);

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("a text as the key")
    }

    fn visit_str<E: Error>(self, key: &str) -> Result<Self::Value, E> {
        self.source.spend(key.len())?;
        if key == "<<" {
            self.source.key_refused.set(true);
            return Err(E::custom("merge keys (<<) are not read: write the fields out"));
        }
        if !self.seen.insert(key.to_owned()) {
            self.source.key_refused.set(true);
            return Err(E::custom(format!("duplicate key {key:?}")));
        }
        Ok((key.to_owned(), 0))
    }

    fn visit_borrowed_str<E: Error>(self, key: &'de str) -> Result<Self::Value, E> {
        let (line, plain) = self.source.place(key);
        if plain && is_ambiguous(key) {
            self.source.key_refused.set(true);
            return Err(E::custom(format!(
                "a cluster reads the key {key} as a boolean or a number: write \"{key}\""
            )));
        }
        self.visit_str(key).map(|(key, _)| (key, line))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn one(text: &str) -> Node {
        documents(text).remove(0).unwrap().1
    }

    #[test]
    fn keys_and_texts_know_their_lines() {
        let node = one("# remark\na: 1\nb:\n  - c: x\n  - \"y\"\n");
        let Kind::Map(entries) = &node.kind else { panic!("{node:?}") };
        assert_eq!(entries.iter().map(|entry| entry.line).collect::<Vec<_>>(), [2, 3]);
        let Kind::List(items) = &entries[1].value.kind else { panic!("{node:?}") };
        assert_eq!(items.iter().map(|item| item.line).collect::<Vec<_>>(), [4, 5]);
    }

    #[test]
    fn only_texts_without_quotes_are_plain() {
        let node = one("a: yes\nb: 'yes'\nc: \"yes\"\nd: |\n  yes\n");
        let plain = |key: &str| matches!(node.get(key).unwrap().kind, Kind::Text { plain: true, .. });
        assert_eq!(["a", "b", "c", "d"].map(plain), [true, false, false, false]);
    }

    #[test]
    fn keys_that_a_cluster_reads_as_something_else_are_refused() {
        for key in ["y", "on", "No", "yes", "007", "1_0"] {
            let found = documents(&format!("a: {{{key}: x}}\n---\nb: 1\n"));
            let error = found[0].as_ref().unwrap_err();
            assert!(error.text.contains(&format!("write \"{key}\"")), "{}", error.text);
            assert_eq!((error.line, found.len()), (Some(1), 2), "{key}");
            one(&format!("'{key}': x"));
        }
    }

    #[test]
    fn only_what_yaml_1_1_reads_otherwise_is_ambiguous() {
        for text in ["y", "Off", "007", "1_000.5", "0X1F", "0x1_F", "-0b1_1", "1_0e3", "+5_0", "1E5"] {
            assert!(is_ambiguous(text), "{text}");
        }
        for text in [
            "",
            "_1",
            "yess",
            "1.5.2",
            "0x",
            "0xg",
            "1a",
            "-",
            ".",
            "inf",
            "nan",
            "12:30",
            "2024-01-01",
            "1e",
        ] {
            assert!(!is_ambiguous(text), "{text}");
        }
    }

    #[test]
    fn a_control_character_has_its_line() {
        let found = documents("a: 1\nb: \"\u{1b}[2J\"\n");
        let error = found[0].as_ref().unwrap_err();
        assert_eq!((error.line, error.text.as_str()), (Some(2), r"the control character '\u{1b}'"));
    }

    #[test]
    fn exclamation_marks_in_texts_and_remarks_are_no_tags() {
        one("# !!str\na: wow !!\nb: |\n  return !!flag;\n  !x\nc: '!!strong'\n");
        one(&format!("# {}\na: 1\n", "[".repeat(300)));
    }

    #[test]
    fn a_document_that_cannot_be_read_does_not_hide_the_next() {
        let found = documents("a: 1\na: 2\n---\nb: 1\n---\n# nothing\n---\n? [x]\n: 1\n");
        assert_eq!(found.len(), 3);
        let first = found[0].as_ref().unwrap_err();
        assert_eq!((first.document, first.line), (1, Some(2)));
        assert!(first.text.contains("duplicate key \"a\""), "{}", first.text);
        assert_eq!(found[1].as_ref().unwrap().0, 2);
        assert_eq!(found[2].as_ref().unwrap_err().document, 4);
    }

    #[test]
    fn hostile_yaml_ends_early_with_a_reason() {
        let billion = (1..10).fold("a0: &a0 [x, x, x, x, x, x, x, x, x]\n".to_owned(), |text, level| {
            let previous = format!("*a{}, ", level - 1).repeat(9);
            format!("{text}a{level}: &a{level} [{previous}]\n")
        });
        let wide = format!("a: &a {}\nb: [{}]\n", "x".repeat(500_000), "*a, ".repeat(100_000));
        let quadratic = format!("a: &a [{}]\nb: [{}]\n", "x, ".repeat(100_000), "*a, ".repeat(100_000));
        let deep = "[".repeat(200);
        let brackets = "{a: ".repeat(250_000);
        let hidden = ["\r", "\u{2028}"].map(|end| format!("# remark{end}{brackets}"));
        let dashes = "- ".repeat(100_000);
        let cases = [
            (billion.as_str(), "repetition limit"),
            (&wide, "aliases"),
            (&quadratic, "aliases"),
            (&deep, "recursion limit"),
            (&dashes, "recursion limit"),
            (&brackets, "256 brackets"),
            (&hidden[0], "256 brackets"),
            (&hidden[1], "256 brackets"),
            ("a: !tag {b: 1}", "without a tag"),
            ("a: &a [*a]", "recursion limit"),
            ("a: *nobody", "anchor"),
            ("a: [1", "did not find"),
            ("base: &b {c: 1}\nd: {<<: *b}", "merge keys"),
            ("1: a", "a text as the key"),
            ("a: !!binary aGVsbG8=", "the tag !!binary"),
            ("a: {\"b\":!!str 5}", "the tag !!str"),
            ("!!map\na: 1", "the tag !!map"),
            ("a: !<tag:yaml.org,2002:str> 5", "the tag !<tag:yaml.org"),
            ("%TAG !y! tag:yaml.org,2002:\n---\na: !y!binary aGVsbG8=", "%TAG"),
        ];
        for (text, reason) in cases {
            let text = format!("{text}\n---\na: 1\n---\nb: 2\n");
            let found = documents(&text);
            let error = found[0].as_ref().unwrap_err();
            assert!(error.text.contains(reason), "{reason}: {}", error.text);
        }
    }
}
