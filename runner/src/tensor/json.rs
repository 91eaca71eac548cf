//! Tensor elements in JSON, as the Open Inference Protocol writes them: row-major, nested or flat.
//!
//! Reading is a scanner of our own over the array's text instead of a JSON value tree: a tree costs 32 bytes and an
//! allocation a number, the scanner parses into the element buffer. It is lenient in one point: `NaN`, `Infinity` and
//! `-Infinity` are read and written as Python's and Triton's JSON do, since models do give them.

use std::borrow::Cow;

use bytes::{BufMut, Bytes, BytesMut};
use half::{bf16, f16};

use super::{Dtype, Elements, Tensor, TensorError, element_count};

/// Arrays in arrays that are followed.
const MAX_DEPTH: usize = 32;

/// The floats that JSON has no number for, as Python and Triton write them.
const NON_FINITE: [&str; 3] = ["NaN", "Infinity", "-Infinity"];

/// Puts bare `NaN`, `Infinity` and `-Infinity` outside of strings in quotes, so that a strict JSON parser takes the
/// text; [`read`] takes both spellings. Borrowed if there are none.
pub fn quote_non_finite(text: &str) -> Cow<'_, str> {
    if !text.contains("NaN") && !text.contains("Infinity") {
        return Cow::Borrowed(text);
    }
    let mut quoted = String::with_capacity(text.len() + 16);
    let mut rest = text;
    let mut in_string = false;
    while let Some(first) = rest.chars().next() {
        let token = NON_FINITE.into_iter().find(|token| !in_string && rest.starts_with(token));
        let length = match (token, first) {
            (Some(token), _) => {
                quoted.push('"');
                quoted.push_str(token);
                quoted.push('"');
                token.len()
            }
            (None, '\\') if in_string => {
                let length = 1 + rest.chars().nth(1).map_or(0, char::len_utf8);
                quoted.push_str(rest.get(..length).unwrap_or_default());
                length
            }
            (None, _) => {
                in_string ^= first == '"';
                quoted.push(first);
                first.len_utf8()
            }
        };
        rest = rest.get(length..).unwrap_or_default();
    }
    Cow::Owned(quoted)
}

/// What a `data` array holds: its elements and the shape that its nesting shows.
#[derive(Debug)]
struct Parsed {
    elements: Elements,
    /// Sizes by nesting depth; `None` when rows differ in length.
    nesting: Option<Vec<i64>>,
}

/// Reads a `data` value as a tensor of `shape`. A flat array and one nested as the shape are both accepted, and a bare
/// value for a scalar.
///
/// # Errors
/// [`TensorError::Json`] for text that is no such array or a value that the datatype cannot hold,
/// [`TensorError::Nesting`] for arrays that are nested otherwise than the shape,
/// [`TensorError::Count`] or [`TensorError::Shape`] if the elements do not fit the shape.
pub fn read(dtype: Dtype, shape: Vec<i64>, text: &[u8]) -> Result<Tensor, TensorError> {
    // Checked first: the shape sizes the buffer only after it is known to be sane.
    let count = element_count(&shape)?;
    let parsed = parse(dtype, text, count)?;
    if let Some(nesting) = &parsed.nesting
        && nesting.len() > 1
        && *nesting != shape
        && nesting.iter().product::<i64>() != 0
        && !nested_as_rows(nesting, &shape)
    {
        return Err(TensorError::Nesting(format!(
            "data is nested as {}, the shape says {}",
            super::format_shape(nesting),
            super::format_shape(&shape)
        )));
    }
    if parsed.nesting.is_none() {
        return Err(TensorError::Nesting("rows of data differ in length".to_owned()));
    }
    build(dtype, shape, parsed.elements)
}

/// Reads nested arrays as a tensor whose shape is their nesting; a bare value is a scalar.
///
/// # Errors
/// [`TensorError::Json`] for anything else, or when rows differ in length.
pub fn read_nested(dtype: Dtype, text: &[u8]) -> Result<Tensor, TensorError> {
    let parsed = parse(dtype, text, 0)?;
    let shape = parsed.nesting.ok_or_else(|| TensorError::Nesting("rows differ in length".to_owned()))?;
    build(dtype, shape, parsed.elements)
}

/// Rows flattened within: `[[1,2,3,4]]` for `[1,2,2]` keeps its leading dimensions and flattens the rest.
fn nested_as_rows(nesting: &[i64], shape: &[i64]) -> bool {
    let Some((last, leading)) = nesting.split_last() else { return true };
    let Some(rest) = shape.strip_prefix(leading) else { return false };
    rest.iter().product::<i64>() == *last
}

fn build(dtype: Dtype, shape: Vec<i64>, elements: Elements) -> Result<Tensor, TensorError> {
    match elements {
        Elements::Text(elements) => Tensor::text(shape, elements),
        Elements::Raw(bytes) => {
            let wanted = element_count(&shape)?;
            let got = bytes.len() / dtype.width().unwrap_or(1);
            if wanted != got {
                let shape = super::format_shape(&shape);
                return Err(TensorError::Count { shape, wanted, got, unit: "elements" });
            }
            Tensor::raw(dtype, shape, bytes)
        }
    }
}

fn parse(dtype: Dtype, text: &[u8], expected: usize) -> Result<Parsed, TensorError> {
    let mut scanner = Scanner {
        text,
        at: 0,
        dtype,
        // The text bounds the elements, so a lying shape reserves nothing.
        raw: BytesMut::with_capacity(expected.min(text.len()) * dtype.width().unwrap_or(0)),
        elements: Vec::new(),
        sizes: Vec::new(),
        ragged: false,
    };
    scanner.skip_space();
    scanner.value(0)?;
    scanner.skip_space();
    if scanner.at != text.len() {
        return Err(scanner.fail("unexpected text after the data"));
    }
    let nesting = (!scanner.ragged).then(|| scanner.sizes.iter().map(|size| size.unwrap_or(0)).collect());
    let elements = match dtype {
        Dtype::Bytes => Elements::Text(scanner.elements),
        _ => Elements::Raw(scanner.raw.freeze()),
    };
    Ok(Parsed { elements, nesting })
}

struct Scanner<'a> {
    text: &'a [u8],
    at: usize,
    dtype: Dtype,
    raw: BytesMut,
    elements: Vec<Bytes>,
    /// The size of arrays at each depth, once one has been closed.
    sizes: Vec<Option<i64>>,
    ragged: bool,
}

impl Scanner<'_> {
    fn fail(&self, what: &str) -> TensorError {
        TensorError::Json(format!("{what} at byte {} of data", self.at))
    }

    fn peek(&self) -> Option<u8> {
        self.text.get(self.at).copied()
    }

    fn skip_space(&mut self) {
        while matches!(self.peek(), Some(b' ' | b'\n' | b'\r' | b'\t')) {
            self.at += 1;
        }
    }

    fn value(&mut self, depth: usize) -> Result<(), TensorError> {
        match self.peek() {
            Some(b'[') => self.array(depth),
            // Elements must all sit at the same depth: `[1,[2]]` is ragged.
            Some(_) => {
                self.ragged |= self.sizes.len() > depth;
                self.element()
            }
            None => Err(self.fail("data ends too early")),
        }
    }

    fn array(&mut self, depth: usize) -> Result<(), TensorError> {
        if depth >= MAX_DEPTH {
            return Err(self.fail("arrays are nested too deeply"));
        }
        if self.sizes.len() == depth {
            // An element seen before at this depth (or deeper arrays closed) makes a later array ragged.
            self.ragged |= !(self.raw.is_empty() && self.elements.is_empty());
            self.sizes.push(None);
        }
        self.at += 1;
        let mut length: i64 = 0;
        self.skip_space();
        if self.peek() == Some(b']') {
            self.at += 1;
        } else {
            loop {
                self.skip_space();
                self.value(depth + 1)?;
                length += 1;
                self.skip_space();
                match self.peek() {
                    Some(b',') => self.at += 1,
                    Some(b']') => {
                        self.at += 1;
                        break;
                    }
                    _ => return Err(self.fail("expected ',' or ']'")),
                }
            }
        }
        match self.sizes.get_mut(depth) {
            Some(Some(size)) if *size != length => self.ragged = true,
            Some(size) => *size = Some(length),
            None => {}
        }
        Ok(())
    }

    fn element(&mut self) -> Result<(), TensorError> {
        if self.dtype == Dtype::Bytes {
            let text = self.string()?;
            self.elements.push(Bytes::from(text.into_bytes()));
            return Ok(());
        }
        let start = self.at;
        if self.peek() == Some(b'"') {
            if let Some(token) = NON_FINITE.into_iter().find(|token| self.is_quoted(token)) {
                self.at += token.len() + 2;
                if put_number(self.dtype, token, &mut self.raw) {
                    return Ok(());
                }
            }
            return Err(self.fail(&format!("a string where a {} is expected", self.dtype)));
        }
        while !matches!(self.peek(), None | Some(b',' | b']' | b' ' | b'\n' | b'\r' | b'\t')) {
            self.at += 1;
        }
        let token = self.text.get(start..self.at).unwrap_or_default();
        let token = std::str::from_utf8(token).map_err(|_| self.fail("text that is not UTF-8"))?;
        if put_number(self.dtype, token, &mut self.raw) {
            return Ok(());
        }
        self.at = start;
        let shown: String = token.chars().take(32).collect();
        Err(self.fail(&format!("{shown:?} is not a {}", self.dtype)))
    }

    fn is_quoted(&self, token: &str) -> bool {
        let rest = self.text.get(self.at + 1..).unwrap_or_default();
        rest.strip_prefix(token.as_bytes()).is_some_and(|rest| rest.starts_with(b"\""))
    }

    fn string(&mut self) -> Result<String, TensorError> {
        let start = self.at;
        if self.peek() != Some(b'"') {
            return Err(self.fail("a string is expected"));
        }
        self.at += 1;
        loop {
            match self.peek() {
                Some(b'\\') => self.at += 2,
                Some(b'"') => {
                    self.at += 1;
                    break;
                }
                Some(_) => self.at += 1,
                None => return Err(self.fail("a string does not end")),
            }
        }
        let quoted = self.text.get(start..self.at).unwrap_or_default();
        serde_json::from_slice(quoted).map_err(|_| self.fail("a string is not valid JSON"))
    }
}

/// Parses one number of `dtype` and appends it; false if the token is no such number.
fn put_number(dtype: Dtype, token: &str, out: &mut BytesMut) -> bool {
    fn integer<T: std::str::FromStr + TryFrom<i128>>(token: &str) -> Option<T> {
        if let Ok(value) = token.parse() {
            // `parse` would take "+1" and, for some types, forms that JSON does not have.
            return (!token.starts_with('+')).then_some(value);
        }
        // 3.0 and 1e3 are integers to many JSON writers.
        let value: f64 = token.parse().ok()?;
        (is_json_number(token) && value.fract() == 0.0 && value.abs() < 9_007_199_254_740_992.0)
            .then(|| T::try_from(value as i128).ok())
            .flatten()
    }
    /// Beyond the type's range is no number of the type: an infinity has to be written as one.
    fn narrow<T>(token: &str, convert: impl Fn(f64) -> T, is_infinite: impl Fn(&T) -> bool) -> Option<T> {
        let wide = float(token)?;
        let narrow = convert(wide);
        (wide.is_infinite() == is_infinite(&narrow)).then_some(narrow)
    }
    fn float(token: &str) -> Option<f64> {
        match token {
            "NaN" => Some(f64::NAN),
            "Infinity" => Some(f64::INFINITY),
            "-Infinity" => Some(f64::NEG_INFINITY),
            _ if is_json_number(token) => token.parse().ok().filter(|value: &f64| value.is_finite()),
            _ => None,
        }
    }
    macro_rules! put {
        ($parsed:expr) => {
            match $parsed {
                Some(value) => out.put_slice(&value.to_le_bytes()),
                None => return false,
            }
        };
    }
    match dtype {
        Dtype::Bool => match token {
            "true" | "1" => out.put_u8(1),
            "false" | "0" => out.put_u8(0),
            _ => return false,
        },
        Dtype::Uint8 => put!(integer::<u8>(token)),
        Dtype::Uint16 => put!(integer::<u16>(token)),
        Dtype::Uint32 => put!(integer::<u32>(token)),
        Dtype::Uint64 => put!(integer::<u64>(token)),
        Dtype::Int8 => put!(integer::<i8>(token)),
        Dtype::Int16 => put!(integer::<i16>(token)),
        Dtype::Int32 => put!(integer::<i32>(token)),
        Dtype::Int64 => put!(integer::<i64>(token)),
        Dtype::Fp16 => put!(narrow(token, f16::from_f64, |value| value.is_infinite())),
        Dtype::Bf16 => put!(narrow(token, bf16::from_f64, |value| value.is_infinite())),
        // Parsed as 32 bits, not through 64: rounding once gives the nearest value.
        Dtype::Fp32 => put!(match token.parse::<f32>() {
            Ok(value) if is_json_number(token) && value.is_finite() => Some(value),
            _ => narrow(token, |value| value as f32, |value| value.is_infinite()),
        }),
        Dtype::Fp64 => put!(float(token)),
        Dtype::Bytes => return false,
    }
    true
}

/// JSON's number syntax begins with a digit or '-' and a digit; Rust's `parse` also takes "inf", "+1" and ".5".
fn is_json_number(token: &str) -> bool {
    let digits = token.strip_prefix('-').unwrap_or(token);
    digits.starts_with(|first: char| first.is_ascii_digit()) && !digits.ends_with('.')
}

/// Appends the elements as one flat JSON array.
///
/// # Errors
/// [`TensorError::Json`] for BYTES elements that are not UTF-8: JSON cannot carry them.
pub fn write(tensor: &Tensor, out: &mut Vec<u8>) -> Result<(), TensorError> {
    out.push(b'[');
    match tensor.elements() {
        Elements::Text(elements) => {
            for (index, element) in elements.iter().enumerate() {
                separate(index, out);
                let text = std::str::from_utf8(element)
                    .map_err(|_| TensorError::Json(format!("element {index} is not UTF-8")))?;
                serde_json::to_writer(&mut *out, text)
                    .map_err(|_| TensorError::Json(format!("element {index} cannot be written")))?;
            }
        }
        Elements::Raw(bytes) => write_numbers(tensor.dtype(), bytes, out),
    }
    out.push(b']');
    Ok(())
}

fn separate(index: usize, out: &mut Vec<u8>) {
    if index > 0 {
        out.push(b',');
    }
}

fn write_numbers(dtype: Dtype, bytes: &[u8], out: &mut Vec<u8>) {
    macro_rules! integers {
        ($type:ty) => {{
            let mut buffer = itoa::Buffer::new();
            let (elements, _) = bytes.as_chunks::<{ size_of::<$type>() }>();
            for (index, element) in elements.iter().enumerate() {
                separate(index, out);
                out.extend_from_slice(buffer.format(<$type>::from_le_bytes(*element)).as_bytes());
            }
        }};
    }
    macro_rules! floats {
        ($from:expr, $width:literal) => {{
            let mut buffer = ryu::Buffer::new();
            let (elements, _) = bytes.as_chunks::<$width>();
            for (index, element) in elements.iter().enumerate() {
                separate(index, out);
                let value = $from(*element);
                let text = if value.is_finite() {
                    buffer.format_finite(value)
                } else if value.is_nan() {
                    "NaN"
                } else if value > 0.0 {
                    "Infinity"
                } else {
                    "-Infinity"
                };
                out.extend_from_slice(text.as_bytes());
            }
        }};
    }
    match dtype {
        Dtype::Bool => {
            for (index, byte) in bytes.iter().enumerate() {
                separate(index, out);
                out.extend_from_slice(if *byte == 0 { b"false" } else { b"true" });
            }
        }
        Dtype::Uint8 => integers!(u8),
        Dtype::Uint16 => integers!(u16),
        Dtype::Uint32 => integers!(u32),
        Dtype::Uint64 => integers!(u64),
        Dtype::Int8 => integers!(i8),
        Dtype::Int16 => integers!(i16),
        Dtype::Int32 => integers!(i32),
        Dtype::Int64 => integers!(i64),
        Dtype::Fp16 => floats!(|element| f16::from_le_bytes(element).to_f32(), 2),
        Dtype::Bf16 => floats!(|element| bf16::from_le_bytes(element).to_f32(), 2),
        Dtype::Fp32 => floats!(f32::from_le_bytes, 4),
        Dtype::Fp64 => floats!(f64::from_le_bytes, 8),
        Dtype::Bytes => {}
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn check_reads(dtype: Dtype, shape: &[i64], text: &str, written: &str) {
        let tensor =
            read(dtype, shape.to_vec(), text.as_bytes()).unwrap_or_else(|error| panic!("{text}: {error}"));
        let mut out = Vec::new();
        write(&tensor, &mut out).expect("writable");
        assert_eq!(String::from_utf8_lossy(&out), written, "{text}");
    }

    fn check_refuses(dtype: Dtype, shape: &[i64], text: &str, message: &str) {
        let error = read(dtype, shape.to_vec(), text.as_bytes()).expect_err(text).to_string();
        assert!(error.contains(message), "{text}: {error}");
    }

    #[test]
    fn reads_flat_and_nested() {
        check_reads(Dtype::Fp32, &[2, 2], "[1, 2.5, -3e2, 0.1]", "[1.0,2.5,-300.0,0.1]");
        check_reads(Dtype::Fp32, &[2, 2], "[[1,2],\n[3,4]]", "[1.0,2.0,3.0,4.0]");
        check_reads(Dtype::Fp32, &[1, 2, 2], "[[1,2,3,4]]", "[1.0,2.0,3.0,4.0]");
        check_reads(Dtype::Int64, &[], "[7]", "[7]");
        check_reads(Dtype::Int64, &[], "7", "[7]");
        check_reads(
            Dtype::Int64,
            &[2],
            "[9223372036854775807, -9223372036854775808]",
            "[9223372036854775807,-9223372036854775808]",
        );
        check_reads(Dtype::Int32, &[2], "[3.0, 1e3]", "[3,1000]");
        check_reads(Dtype::Bool, &[3], "[true, false, 1]", "[true,false,true]");
        check_reads(Dtype::Bytes, &[1, 2], r#"["a\"b", "\u00e9"]"#, r#"["a\"b","é"]"#);
        check_reads(Dtype::Fp32, &[0, 4], "[]", "[]");
        check_reads(Dtype::Fp32, &[2, 0], "[[],[]]", "[]");
        check_reads(Dtype::Fp16, &[2], "[0.5, 65504]", "[0.5,65504.0]");
        check_reads(Dtype::Fp64, &[3], "[NaN, Infinity, -Infinity]", "[NaN,Infinity,-Infinity]");
    }

    #[test]
    fn non_finite_numbers_are_quoted_outside_of_strings() {
        assert_eq!(quote_non_finite(r#"[1]"#), "[1]");
        assert_eq!(
            quote_non_finite(r#"{"NaN\"NaN": [NaN, -Infinity, Infinity], "é": "NaN"}"#),
            r#"{"NaN\"NaN": ["NaN", "-Infinity", "Infinity"], "é": "NaN"}"#
        );
        check_reads(Dtype::Fp32, &[2], r#"["NaN", "-Infinity"]"#, "[NaN,-Infinity]");
        check_refuses(Dtype::Int32, &[1], r#"["NaN"]"#, "a string where");
    }

    #[test]
    fn refuses_with_a_reason() {
        check_refuses(Dtype::Fp32, &[2, 2], "[1,2,3]", "holds 4 elements, but 3 came");
        check_refuses(Dtype::Fp32, &[2, 2], "[[1,2],[3]]", "differ in length");
        check_refuses(Dtype::Fp32, &[3], "[1,[2],3]", "differ in length");
        check_refuses(Dtype::Fp32, &[2, 3], "[[1,2],[3,4],[5,6]]", "nested as [3,2]");
        check_refuses(Dtype::Int8, &[1], "[128]", "is not a INT8");
        check_refuses(Dtype::Uint8, &[1], "[-1]", "is not a UINT8");
        check_refuses(Dtype::Int32, &[1], "[1.5]", "is not a INT32");
        check_refuses(Dtype::Fp32, &[1], "[\"1\"]", "a string where a FP32 is expected");
        check_refuses(Dtype::Bytes, &[1], "[1]", "a string is expected");
        check_refuses(Dtype::Fp32, &[1], "[null]", "is not a FP32");
        check_refuses(Dtype::Fp32, &[1], "[inf]", "is not a FP32");
        for (dtype, text) in [
            (Dtype::Fp32, "[1e400]"),
            (Dtype::Fp32, "[1e39]"),
            (Dtype::Fp64, "[-1e400]"),
            (Dtype::Fp16, "[65520]"),
        ] {
            check_refuses(dtype, &[1], text, "is not a FP");
        }
        check_refuses(Dtype::Fp32, &[1], "[1] 2", "unexpected text");
        check_refuses(Dtype::Fp32, &[1], "[1", "expected ',' or ']'");
        check_refuses(Dtype::Fp32, &[1], &"[".repeat(100_000), "nested too deeply");
        check_refuses(Dtype::Bytes, &[1], r#"["\ud800"]"#, "not valid JSON");
    }

    #[test]
    fn nesting_gives_the_shape() {
        let tensor = read_nested(Dtype::Int64, b"[[1,2,3],[4,5,6]]").expect("a matrix");
        assert_eq!(tensor.shape(), [2, 3]);
        assert_eq!(read_nested(Dtype::Int64, b"5").expect("a scalar").shape(), [] as [i64; 0]);
    }

    proptest! {
        #[test]
        fn floats_survive_the_round_trip(values in proptest::collection::vec(any::<f32>(), 0..40)) {
            let bytes: Vec<u8> = values.iter().flat_map(|value| value.to_le_bytes()).collect();
            let tensor = Tensor::raw(Dtype::Fp32, vec![values.len() as i64], Bytes::from(bytes)).expect("a tensor");
            let mut text = Vec::new();
            write(&tensor, &mut text).expect("writable");
            let back = read(Dtype::Fp32, tensor.shape().to_vec(), &text).expect("readable");
            let (differences, count) = crate::tensor::compare(
                &tensor, &back, crate::tensor::Tolerance { absolute: 0.0, relative: 0.0 }, 3);
            prop_assert_eq!(count, 0, "{:?}", differences);
        }

        #[test]
        fn arbitrary_text_never_panics(text in "[\\[\\], \"0-9a-zA-Z.\\\\+-]{0,60}", index in 0..14_usize) {
            let _ = read(Dtype::ALL[index], vec![2], text.as_bytes());
            let _ = read_nested(Dtype::ALL[index], text.as_bytes());
        }
    }
}
