//! From a sampled request to lines: a JSON object a row, masked. Runs on the writer's thread.

use std::time::SystemTime;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use sha2::{Digest, Sha256};

use super::plan::{Field, Plan, Side};
use super::{ModelLog, RequestId, Salt};
use crate::bundle::Mask;
use crate::contract::Part;
use crate::tensor::{Elements, Tensor, TensorError, json};

/// What stands for a value that is redacted.
const REDACTED: &[u8] = b"\"[redacted]\"";

/// An answered request on its way to the log.
pub(super) struct Record {
    pub(super) log: ModelLog,
    pub(super) id: RequestId,
    pub(super) time: SystemTime,
    pub(super) rows: usize,
    /// Of the tensors.
    pub(super) bytes: usize,
    /// By position; `None` for those of which nothing is kept.
    pub(super) inputs: Vec<Option<Tensor>>,
    /// By position in the signature; `None` for those that were not asked for, or of which nothing is kept.
    pub(super) outputs: Vec<Option<Tensor>>,
}

/// How many rows became lines, and how many were larger than allowed.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(super) struct Written {
    pub(super) lines: usize,
    pub(super) dropped: usize,
}

/// The rows that these tensors hold: their common first dimension, where it counts rows; one if they differ.
pub(super) fn rows<'a>(tensors: impl Iterator<Item = (&'a Tensor, bool)>) -> usize {
    let mut counted = tensors.filter(|(_, counts)| *counts).map(|(tensor, _)| tensor.shape().first());
    let Some(Some(first)) = counted.next() else { return 1 };
    match counted.all(|size| size == Some(first)) {
        true => usize::try_from(*first).unwrap_or(1),
        false => 1,
    }
}

impl Record {
    /// Appends the lines. Rows beyond `limit` bytes in all are dropped, as are single ones beyond the plan's limit.
    pub(super) fn write(&self, limit: usize, out: &mut Vec<u8>) -> Written {
        let plan = &self.log.plan;
        let mut written = Written::default();
        let begin = out.len();
        let mut head = Vec::with_capacity(256);
        self.head(&mut head);
        for row in 0..self.rows {
            let start = out.len();
            out.extend_from_slice(&head);
            self.row(row, plan, out);
            if out.len() - begin > limit {
                out.truncate(start);
                written.dropped += self.rows - row;
                break;
            }
            if out.len() - start > plan.max_row_bytes {
                out.truncate(start);
                written.dropped += 1;
            } else {
                written.lines += 1;
            }
        }
        written
    }

    fn head(&self, out: &mut Vec<u8>) {
        let micros = self.time.duration_since(SystemTime::UNIX_EPOCH).map_or(0, |time| time.as_micros());
        let micros = i64::try_from(micros).unwrap_or(i64::MAX);
        let time = jiff::Timestamp::from_microsecond(micros).unwrap_or_default();
        out.extend_from_slice(format!("{{\"time\":\"{time:.6}\"").as_bytes());
        out.extend_from_slice(&self.log.identity);
        out.extend_from_slice(b",\"id\":");
        put_text(&self.id.text, out);
        out.extend_from_slice(b",\"row\":");
    }

    fn row(&self, row: usize, plan: &Plan, out: &mut Vec<u8>) {
        let number = self.id.piece.unwrap_or(0).saturating_add(row as u64);
        // How many rows a file has is not known before its end.
        let rows = if self.id.piece.is_some() { "null".to_owned() } else { self.rows.to_string() };
        out.extend_from_slice(format!("{number},\"rows\":{rows},\"inputs\":{{").as_bytes());
        self.side(row, &plan.inputs, &self.inputs, out);
        out.extend_from_slice(b"},\"outputs\":{");
        self.side(row, &plan.outputs, &self.outputs, out);
        out.push(b'}');
        if !plan.masked.is_empty() {
            out.extend_from_slice(b",\"masked\":");
            out.extend_from_slice(&plan.masked);
        }
        out.extend_from_slice(b"}\n");
    }

    fn side(&self, row: usize, side: &Side, tensors: &[Option<Tensor>], out: &mut Vec<u8>) {
        let mut first = true;
        for field in &side.fields {
            let Some(Some(tensor)) = tensors.get(field.tensor) else { continue };
            let counts = side.counts_rows.get(field.tensor).copied().unwrap_or(false);
            // A tensor that does not count rows belongs to each of them as a whole.
            let (row, rows) = if counts { (row, self.rows) } else { (0, 1) };
            if !first {
                out.push(b',');
            }
            first = false;
            out.extend_from_slice(&field.key);
            put_value(field, &Row { tensor, row, rows }, self.log.salt(), out);
        }
    }
}

/// One row of a tensor.
struct Row<'a> {
    tensor: &'a Tensor,
    row: usize,
    rows: usize,
}

impl Row<'_> {
    /// Elements of a row.
    fn size(&self) -> usize {
        let elements = match self.tensor.elements() {
            Elements::Raw(bytes) => bytes.len() / self.tensor.dtype().width().unwrap_or(1),
            Elements::Text(elements) => elements.len(),
        };
        elements / self.rows.max(1)
    }

    /// Some of the row's elements as a tensor of their own; nothing is copied but strings' handles.
    fn part(&self, from: usize, count: usize) -> Result<Tensor, TensorError> {
        let start = self.row * self.size() + from;
        let shape = vec![i64::try_from(count).unwrap_or(i64::MAX)];
        match self.tensor.elements() {
            Elements::Raw(bytes) => {
                let width = self.tensor.dtype().width().unwrap_or(1);
                let range = start * width..(start + count) * width;
                let bytes = if range.end <= bytes.len() { bytes.slice(range) } else { Default::default() };
                Tensor::raw(self.tensor.dtype(), shape, bytes)
            }
            Elements::Text(elements) => {
                Tensor::text(shape, elements.get(start..start + count).unwrap_or_default().to_vec())
            }
        }
    }

    /// The elements as a JSON array.
    fn array(&self, from: usize, count: usize) -> Vec<u8> {
        let mut out = Vec::with_capacity(16 * count + 2);
        let Ok(tensor) = self.part(from, count) else { return b"[]".to_vec() };
        if json::write(&tensor, &mut out).is_err() {
            // JSON has no word for strings that are not UTF-8.
            out.clear();
            out.push(b'[');
            if let Elements::Text(elements) = tensor.elements() {
                for (index, element) in elements.iter().enumerate() {
                    if index > 0 {
                        out.push(b',');
                    }
                    match std::str::from_utf8(element) {
                        Ok(text) => put_text(text, &mut out),
                        Err(_) => {
                            out.extend_from_slice(b"{\"base64\":");
                            put_text(&STANDARD.encode(element), &mut out);
                            out.push(b'}');
                        }
                    }
                }
            }
            out.push(b']');
        }
        // `NaN` and its like are no JSON; in quotes they are, and the runner reads them back.
        match std::str::from_utf8(&out).map(json::quote_non_finite) {
            Ok(std::borrow::Cow::Owned(quoted)) => quoted.into_bytes(),
            _ => out,
        }
    }

    /// One element in JSON, without the brackets of an array.
    fn cell(&self, index: usize) -> Vec<u8> {
        let mut array = self.array(index, 1);
        match array.len() {
            0..=2 => b"null".to_vec(),
            length => {
                array.truncate(length - 1);
                array.split_off(1)
            }
        }
    }
}

fn put_value(field: &Field, row: &Row<'_>, salt: Option<&Salt>, out: &mut Vec<u8>) {
    match field.mask {
        Some(Mask::Redact | Mask::Remove) => out.extend_from_slice(REDACTED),
        Some(Mask::Hash) => match salt {
            Some(salt) => {
                out.push(b'"');
                out.extend_from_slice(hash(salt, &hashed(field, row)).as_bytes());
                out.push(b'"');
            }
            // Such a plan is not taken without a salt; were it, nothing leaks.
            None => out.extend_from_slice(REDACTED),
        },
        None => put_plain(field, row, out),
    }
}

fn put_plain(field: &Field, row: &Row<'_>, out: &mut Vec<u8>) {
    match &field.part {
        Part::Cell(index) => out.extend_from_slice(&row.cell(*index)),
        Part::Whole => out.extend_from_slice(&row.array(0, row.size())),
        Part::Raw => put_text(&STANDARD.encode(memory(row)), out),
        Part::Labels(labels) if labels.len() == row.size() => {
            out.push(b'{');
            for (index, label) in labels.iter().enumerate() {
                if index > 0 {
                    out.push(b',');
                }
                put_text(label, out);
                out.push(b':');
                out.extend_from_slice(&row.cell(index));
            }
            out.push(b'}');
        }
        Part::Labels(_) => out.extend_from_slice(&row.array(0, row.size())),
    }
}

/// What a masked value's digest is of: the bytes of a single string, the text in JSON of everything else.
fn hashed(field: &Field, row: &Row<'_>) -> Vec<u8> {
    if let (Part::Cell(index), Ok(tensor)) = (&field.part, row.part(0, row.size()))
        && let Elements::Text(elements) = tensor.elements()
    {
        return elements.get(*index).map(|element| element.to_vec()).unwrap_or_default();
    }
    let mut text = Vec::new();
    put_plain(field, row, &mut text);
    text
}

/// The row as it lies in memory.
fn memory(row: &Row<'_>) -> Vec<u8> {
    match row.part(0, row.size()).as_ref().map(Tensor::elements) {
        Ok(Elements::Raw(bytes)) => bytes.to_vec(),
        Ok(Elements::Text(elements)) => elements.concat(),
        Err(_) => Vec::new(),
    }
}

fn hash(salt: &Salt, value: &[u8]) -> String {
    let digest = Sha256::new().chain_update(salt.bytes()).chain_update(value).finalize();
    digest.iter().map(|byte| format!("{byte:02x}")).collect()
}

pub(super) fn put_text(text: &str, out: &mut Vec<u8>) {
    // Writing a string to memory does not fail.
    let _ = serde_json::to_writer(out, text);
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use bytes::Bytes;

    use super::super::testing::{iris_contract, iris_signature, settings};
    use super::*;
    use crate::tensor::Dtype;

    fn floats(shape: &[i64], values: &[f32]) -> Tensor {
        let bytes: Vec<u8> = values.iter().flat_map(|value| value.to_le_bytes()).collect();
        Tensor::raw(Dtype::Fp32, shape.to_vec(), bytes.into()).expect("a tensor")
    }

    fn record(toml: &str, inputs: Tensor, outputs: Vec<Option<Tensor>>) -> Record {
        let plan = Plan::new(&settings(toml), &iris_signature(), Some(&iris_contract())).expect("a plan");
        let log = ModelLog::detached(Arc::new(plan), Some(Salt::new(b"0123456789abcdef".to_vec())));
        let rows = rows(std::iter::once((&inputs, true)));
        let id = RequestId { text: "a\"b".into(), piece: None };
        let time = SystemTime::UNIX_EPOCH + std::time::Duration::from_micros(1_700_000_000_123_456);
        Record { log, id, time, rows, bytes: 0, inputs: vec![Some(inputs)], outputs }
    }

    fn lines(record: &Record) -> Vec<serde_json::Value> {
        let mut out = Vec::new();
        let written = record.write(1 << 20, &mut out);
        let text = String::from_utf8(out).expect("UTF-8");
        let lines: Vec<_> = text.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
        assert_eq!(lines.len(), written.lines);
        lines
    }

    #[test]
    fn a_batch_becomes_a_line_a_row() {
        let labels: Vec<u8> = [2_i64, 0].iter().flat_map(|label| label.to_le_bytes()).collect();
        let labels = Tensor::raw(Dtype::Int64, vec![2], labels.into()).expect("a tensor");
        let probabilities = floats(&[2, 3], &[0.1, 0.2, 0.7, 0.5, f32::NAN, f32::INFINITY]);
        let record = record(
            "sample = 1",
            floats(&[2, 4], &[5.1, 3.5, 1.4, 0.2, 6.0, 2.0, 4.0, 1.0]),
            vec![Some(labels), Some(probabilities)],
        );
        let lines = lines(&record);
        assert_eq!(
            lines[0],
            serde_json::json!({
                "time": "2023-11-14T22:13:20.123456Z", "model": "iris", "version": "3", "digest": "sha256:0",
                "id": "a\"b", "row": 0, "rows": 2,
                "inputs": {"sepal_length": 5.1, "sepal_width": 3.5, "petal_length": 1.4, "petal_width": 0.2},
                "outputs": {"label": 2, "probabilities": [0.1, 0.2, 0.7]},
            })
        );
        assert_eq!(lines[1]["row"], 1);
        assert_eq!(lines[1]["outputs"]["probabilities"], serde_json::json!([0.5, "NaN", "Infinity"]));
        let piece = Record { id: record.id.piece(512), ..record };
        let lines = self::lines(&piece);
        assert_eq!((&lines[1]["row"], &lines[1]["rows"]), (&513.into(), &serde_json::Value::Null));
    }

    #[test]
    fn masked_values_are_not_there() {
        let record = record(
            "sample = 1\nmask = { sepal_length = \"remove\", sepal_width = \"hash\", petal_length = \"redact\" }",
            floats(&[1, 4], &[1234.5, 2345.5, 3456.5, 0.2]),
            vec![None, None],
        );
        let line = &lines(&record)[0];
        // `printf 0123456789abcdef2345.5 | sha256sum`
        let digest = "4fecdc8e2c3b96011b25da33368a51b39964317fd610ac7c242eb41236f6e780";
        assert_eq!(line["inputs"]["petal_length"], "[redacted]");
        assert_eq!(line["inputs"]["sepal_width"], digest);
        assert!(line["inputs"].get("sepal_length").is_none());
        assert_eq!(line["outputs"], serde_json::json!({}));
        assert_eq!(line["masked"]["sepal_length"], "remove");
        let text = line.to_string();
        assert!(!["1234.5", "2345.5", "3456.5"].iter().any(|secret| text.contains(secret)), "{text}");
    }

    #[test]
    fn rows_beyond_a_limit_are_dropped_and_counted() {
        let wide = record("sample = 1\nmax_row_bytes = 256", floats(&[2, 4], &[0.5; 8]), vec![None, None]);
        let mut out = Vec::new();
        assert_eq!(wide.write(1 << 20, &mut out).lines, 2);
        let one = out.len() / 2;
        out.clear();
        let written = wide.write(one + 10, &mut out);
        assert_eq!((written, out.len()), (Written { lines: 1, dropped: 1 }, one));
        let long = Record { id: RequestId { text: "x".repeat(200).into(), piece: None }, ..wide };
        out.clear();
        assert_eq!(long.write(1 << 20, &mut out), Written { lines: 0, dropped: 2 });
        assert!(out.is_empty());
    }

    #[test]
    fn strings_that_are_no_text_are_marked() {
        let text =
            Tensor::text(vec![3], vec![Bytes::from_static(b"a"), Bytes::from_static(b"\xff"), Bytes::new()])
                .expect("a tensor");
        let row = |index| Row { tensor: &text, row: index, rows: 3 };
        assert_eq!(row(0).cell(0), b"\"a\"");
        assert_eq!(row(1).cell(0), br#"{"base64":"/w=="}"#);
        assert_eq!(row(2).cell(0), b"\"\"");
        assert_eq!(Row { tensor: &text, row: 0, rows: 1 }.array(0, 3), br#"["a",{"base64":"/w=="},""]"#);
    }

    #[test]
    fn a_single_string_is_hashed_as_its_bytes_and_everything_else_as_its_text() {
        let text = Tensor::text(vec![2], vec![Bytes::from_static(b"a\"b"), Bytes::from_static(b"\xff")]);
        let (text, numbers) = (text.expect("a tensor"), floats(&[2, 1], &[1.0, 2.5]));
        let field = |part| Field { key: Vec::new(), tensor: 0, part, mask: Some(Mask::Hash) };
        for (part, tensor, row, expected) in [
            (Part::Cell(0), &text, 0, &b"a\"b"[..]),
            (Part::Cell(0), &text, 1, b"\xff"),
            (Part::Whole, &text, 0, br#"["a\"b"]"#),
            (Part::Cell(0), &numbers, 1, b"2.5"),
            (Part::Whole, &numbers, 1, b"[2.5]"),
            (Part::Raw, &numbers, 0, b"\"AACAPw==\""),
        ] {
            assert_eq!(hashed(&field(part), &Row { tensor, row, rows: 2 }), expected);
        }
    }

    #[test]
    fn rows_are_what_all_tensors_agree_on() {
        let (two, three) = (floats(&[2, 1], &[0.0; 2]), floats(&[3, 1], &[0.0; 3]));
        assert_eq!(rows([(&two, true), (&three, false)].into_iter()), 2);
        assert_eq!(
            rows([(&two, true), (&three, true)].into_iter()),
            1,
            "what they do not agree on is one row"
        );
        assert_eq!(rows([(&two, false)].into_iter()), 1);
    }
}
