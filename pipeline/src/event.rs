//! CloudEvents 1.0: the event as a checked value, and its HTTP forms.
//!
//! Format: CloudEvents core specification 1.0.2, HTTP protocol binding, JSON event format. The official SDK accepts
//! attribute names, empty ids and times that the specification refuses, and knows no size limit; hence this file.
//! Batches are refused: a function answers one event at a time.

use http::header::CONTENT_TYPE;
use http::{HeaderMap, HeaderName, HeaderValue};
use serde_json::value::RawValue;
use serde_json::{Map, Value};
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;

/// Bytes of `data` that an event may carry; anything larger is a reference.
pub const MAX_DATA: usize = 64 * 1024;
/// Bytes of a whole event with its attributes.
pub const MAX_EVENT: usize = 128 * 1024;
/// What types of this project begin with.
pub const TYPE_PREFIX: &str = "dev.baton.";
/// The extension attribute that names a run.
pub const RUN: &str = "pipelinerun";
/// The extension attribute of an event that is delivered once more on purpose: the code of the function is another, or somebody asked.
pub const REVISION: &str = "batonrevision";

const STRUCTURED: &str = "application/cloudevents+json";
const MAX_ATTRIBUTE: usize = 4096;
/// Attributes of one event: as headers more would be refused by most servers.
const MAX_ATTRIBUTES: usize = 64;
/// How deep data may be nested: with what is put around them they stay below what readers of JSON commonly take, 128.
const MAX_DEPTH: usize = 100;

/// Why bytes are no event.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum EventError {
    /// Not a CloudEvent at all: 415.
    #[error("no CloudEvent: {0}")]
    NoEvent(String),
    /// A CloudEvent that breaks the specification: 400.
    #[error("malformed CloudEvent: {0}")]
    Malformed(String),
    /// Larger than [`MAX_DATA`] or [`MAX_EVENT`]: 413.
    #[error("{0}")]
    TooLarge(String),
}

impl EventError {
    /// The HTTP status that says so.
    pub fn status(&self) -> u16 {
        match self {
            EventError::NoEvent(_) => 415,
            EventError::Malformed(_) => 400,
            EventError::TooLarge(_) => 413,
        }
    }
}

/// A checked event. `data` is what came, JSON or bytes.
#[derive(Debug, Clone, PartialEq)]
pub struct Event {
    /// A URI reference, never empty.
    pub source: String,
    /// Never empty; unique within `source`.
    pub id: String,
    /// Never empty.
    pub kind: String,
    pub subject: Option<String>,
    /// RFC 3339, as it was written.
    pub time: Option<String>,
    pub content_type: Option<String>,
    pub data_schema: Option<String>,
    /// Extension attributes, by lower-case name; values in their string form.
    pub extensions: BTreeMap<String, String>,
    pub data: Data,
}

/// What an event carries.
#[derive(Debug, Clone, PartialEq)]
pub enum Data {
    None,
    Json(Json),
    Bytes(Vec<u8>),
}

/// JSON as it was written: whoever passes it on changes neither long numbers nor the order of names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Json(Box<str>);

impl Json {
    /// # Errors
    /// [`EventError::Malformed`].
    pub(crate) fn read(text: &str) -> Result<Self, EventError> {
        let malformed = |reason: String| EventError::Malformed(format!("the data is no JSON: {reason}"));
        serde_json::from_str::<Value>(text).map_err(|error| malformed(error.to_string()))?;
        if depth(text) > MAX_DEPTH {
            return Err(EventError::Malformed(format!("the data is nested more than {MAX_DEPTH} deep")));
        }
        Ok(Self(text.into()))
    }

    pub fn text(&self) -> &str {
        &self.0
    }

    pub fn value(&self) -> Value {
        serde_json::from_str(&self.0).unwrap_or_default()
    }
}

impl From<Value> for Json {
    fn from(value: Value) -> Self {
        Self(value.to_string().into())
    }
}

/// How deep well-formed JSON is nested.
fn depth(text: &str) -> usize {
    let (mut depth, mut deepest, mut is_text, mut is_escaped) = (0_usize, 0, false, false);
    for byte in text.bytes() {
        match byte {
            _ if is_escaped => is_escaped = false,
            b'\\' => is_escaped = is_text,
            b'"' => is_text = !is_text,
            b'[' | b'{' if !is_text => depth += 1,
            b']' | b'}' if !is_text => depth -= 1,
            _ => {}
        }
        deepest = deepest.max(depth);
    }
    deepest
}

impl Event {
    /// An event of this project: JSON data, the time now, and the run that it belongs to.
    pub fn new(source: &str, id: &str, kind: &str, subject: &str, run: &str, data: Value) -> Self {
        Self {
            source: source.to_owned(),
            id: id.to_owned(),
            kind: format!("{TYPE_PREFIX}{kind}.v1"),
            subject: Some(subject.to_owned()),
            time: Some(jiff::Timestamp::now().to_string()),
            content_type: Some("application/json".to_owned()),
            data_schema: None,
            extensions: BTreeMap::from([(RUN.to_owned(), run.to_owned())]),
            data: Data::Json(data.into()),
        }
    }

    /// The one event with which a function answers this one: its id follows from this event's `source` and `id` and the
    /// function's name, so a redelivery answers the same event; and from [`REVISION`] if the event has it, so another code
    /// answers another event. Copies the run.
    pub fn reply(&self, function: &str, kind: &str, subject: &str, data: Value) -> Self {
        let source = format!("/baton/functions/{function}");
        let id = match self.extensions.get(REVISION) {
            None => reply_id(&self.source, &self.id, function),
            Some(revision) => {
                hex(&[self.source.as_bytes(), self.id.as_bytes(), function.as_bytes(), revision.as_bytes()])
            }
        };
        Self::new(&source, &id, kind, subject, &self.run(), data)
    }

    /// The run's name: the attribute [`RUN`], or what follows from `source` and `id` for an event that begins one.
    pub fn run(&self) -> String {
        match self.extensions.get(RUN) {
            Some(run) => run.clone(),
            None => hex(&[self.source.as_bytes(), self.id.as_bytes()])[..16].to_owned(),
        }
    }

    /// The type without this project's prefix and version (`dataset.updated`); `None` for others' events.
    pub fn short_kind(&self) -> Option<&str> {
        self.kind.strip_prefix(TYPE_PREFIX)?.strip_suffix(".v1")
    }

    /// The data as a JSON object; empty if it is none.
    pub fn object(&self) -> Map<String, Value> {
        match &self.data {
            Data::Json(json) => match json.value() {
                Value::Object(object) => object,
                _ => Map::new(),
            },
            _ => Map::new(),
        }
    }

    /// An attribute by its name in the specification, extensions too; `None` if the event lacks it.
    pub fn attribute(&self, name: &str) -> Option<&str> {
        match name {
            "specversion" => Some("1.0"),
            "source" => Some(&self.source),
            "id" => Some(&self.id),
            "type" => Some(&self.kind),
            "subject" => self.subject.as_deref(),
            "time" => self.time.as_deref(),
            "datacontenttype" => self.content_type.as_deref(),
            "dataschema" => self.data_schema.as_deref(),
            other => self.extensions.get(other).map(String::as_str),
        }
    }

    /// Reads a request or answer: structured if its content type says so, binary if it has `ce-` headers.
    ///
    /// # Errors
    /// See [`EventError`].
    pub fn from_http(headers: &HeaderMap, body: &[u8]) -> Result<Self, EventError> {
        let content_type = header(headers, CONTENT_TYPE.as_str())?.unwrap_or_default();
        let essence = essence(&content_type);
        if essence == STRUCTURED {
            return Self::from_json(body)?.storable();
        }
        if essence.starts_with("application/cloudevents") {
            return Err(EventError::NoEvent(format!("{essence} is not understood, only {STRUCTURED}")));
        }
        let mut attributes = BTreeMap::new();
        let mut size = body.len();
        for (name, value) in headers {
            let Some(name) = name.as_str().strip_prefix("ce-") else { continue };
            let raw = value
                .to_str()
                .ok()
                .map(percent_decoded)
                .ok_or_else(|| EventError::Malformed(format!("ce-{name} has bytes beyond ASCII")))?;
            size += name.len() + raw.len();
            if attributes.insert(name.to_owned(), raw).is_some() {
                return Err(EventError::Malformed(format!("ce-{name} is given twice")));
            }
        }
        if attributes.is_empty() {
            return Err(EventError::NoEvent(format!(
                "neither ce- headers nor the content type {STRUCTURED}"
            )));
        }
        if body.len() > MAX_DATA {
            return Err(too_large_data(body.len()));
        }
        if size > MAX_EVENT {
            return Err(EventError::TooLarge(format!(
                "{size} bytes of event, at most {MAX_EVENT} are allowed"
            )));
        }
        if attributes.contains_key("datacontenttype") {
            return Err(EventError::Malformed(
                "the content type of binary mode is Content-Type, not ce-datacontenttype".into(),
            ));
        }
        let content_type = (!content_type.is_empty()).then_some(content_type);
        let data = match &content_type {
            _ if body.is_empty() => Data::None,
            None => json_or_bytes(body),
            Some(kind) if is_json(kind) => {
                let text = std::str::from_utf8(body)
                    .map_err(|error| EventError::Malformed(format!("the data is no JSON: {error}")))?;
                Data::Json(Json::read(text)?)
            }
            Some(_) => Data::Bytes(body.to_vec()),
        };
        Self::checked(attributes, content_type, data)?.storable()
    }

    /// Makes sure that the event can be read back from the JSON event format, in which events are kept: there bytes are a third
    /// longer.
    ///
    /// # Errors
    /// See [`EventError`].
    pub(crate) fn storable(self) -> Result<Self, EventError> {
        Self::from_json(self.to_json().as_bytes())?;
        Ok(self)
    }

    /// Reads the JSON event format.
    ///
    /// # Errors
    /// See [`EventError`].
    pub fn from_json(body: &[u8]) -> Result<Self, EventError> {
        if body.len() > MAX_EVENT {
            return Err(EventError::TooLarge(format!(
                "{} bytes of event, at most {MAX_EVENT} are allowed",
                body.len()
            )));
        }
        let object: BTreeMap<String, &RawValue> = serde_json::from_slice(body)
            .map_err(|error| EventError::Malformed(format!("no JSON object: {error}")))?;
        let mut attributes = BTreeMap::new();
        let mut content_type = None;
        let (mut json, mut base64) = (None, None);
        for (name, raw) in object {
            if name == "data" {
                json = Some(Json::read(raw.get())?);
                continue;
            }
            let value: Value = serde_json::from_str(raw.get())
                .map_err(|error| EventError::Malformed(format!("{name}: {error}")))?;
            match (name.as_str(), value) {
                ("data_base64", Value::String(text)) => base64 = Some(text),
                ("data_base64", _) => return Err(EventError::Malformed("data_base64 is no string".into())),
                (_, Value::Null) => {}
                ("datacontenttype", Value::String(text)) => content_type = Some(text),
                ("datacontenttype", _) => {
                    return Err(EventError::Malformed("datacontenttype is no string".into()));
                }
                (_, Value::String(text)) => {
                    attributes.insert(name, text);
                }
                (_, Value::Bool(flag)) => {
                    attributes.insert(name, flag.to_string());
                }
                (_, Value::Number(number)) if number.is_i64() => {
                    attributes.insert(name, number.to_string());
                }
                (name, _) => {
                    return Err(EventError::Malformed(format!(
                        "the attribute {name} is no string, integer or boolean"
                    )));
                }
            }
        }
        let data = match (json, base64) {
            (Some(_), Some(_)) => return Err(EventError::Malformed("both data and data_base64".into())),
            (None, None) => Data::None,
            (None, Some(text)) => {
                use base64::Engine as _;
                let bytes = base64::engine::general_purpose::STANDARD
                    .decode(text)
                    .map_err(|error| EventError::Malformed(format!("data_base64: {error}")))?;
                if bytes.len() > MAX_DATA {
                    return Err(too_large_data(bytes.len()));
                }
                Data::Bytes(bytes)
            }
            (Some(json), None) => {
                let data = match json.value() {
                    Value::String(text) if !content_type.as_deref().is_none_or(is_json) => {
                        Data::Bytes(text.into_bytes())
                    }
                    _ => Data::Json(json),
                };
                let length = data.http_body().len();
                if length > MAX_DATA {
                    return Err(too_large_data(length));
                }
                data
            }
        };
        Self::checked(attributes, content_type, data)
    }

    fn checked(
        mut attributes: BTreeMap<String, String>,
        content_type: Option<String>,
        data: Data,
    ) -> Result<Self, EventError> {
        let malformed = |text: String| EventError::Malformed(text);
        if attributes.len() > MAX_ATTRIBUTES {
            return Err(EventError::TooLarge(format!(
                "{} attributes, at most {MAX_ATTRIBUTES} are allowed",
                attributes.len()
            )));
        }
        for (name, value) in &attributes {
            if name.is_empty() || !name.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit())
            {
                return Err(malformed(format!(
                    "attribute names are lower-case letters and digits, not {name:?}"
                )));
            }
            if name == "data" {
                return Err(malformed("data is no attribute".into()));
            }
            if value.len() > MAX_ATTRIBUTE {
                return Err(EventError::TooLarge(format!(
                    "the attribute {name} has {} bytes, at most {MAX_ATTRIBUTE} are allowed",
                    value.len()
                )));
            }
            if value.chars().any(char::is_control) {
                return Err(malformed(format!("the attribute {name} has control characters")));
            }
        }
        if let Some(kind) = &content_type
            && (kind.is_empty() || kind.len() > MAX_ATTRIBUTE || HeaderValue::from_str(kind).is_err())
        {
            return Err(malformed(format!("datacontenttype {kind:?} is no media type")));
        }
        // In binary mode the receiver would read the data as the event.
        if content_type.as_deref().is_some_and(|kind| essence(kind).starts_with("application/cloudevents")) {
            return Err(malformed("an event in an event, by its datacontenttype, is not understood".into()));
        }
        let mut required = |name: &str| match attributes.remove(name) {
            Some(value) if !value.is_empty() => Ok(value),
            Some(_) => Err(malformed(format!("{name} is empty"))),
            None => Err(malformed(format!("{name} is missing"))),
        };
        let version = required("specversion")?;
        if version != "1.0" {
            return Err(malformed(format!("specversion {version:?} is not understood, only \"1.0\"")));
        }
        let (source, id, kind) = (required("source")?, required("id")?, required("type")?);
        let mut optional = |name: &str| match attributes.remove(name) {
            Some(value) if value.is_empty() => Err(malformed(format!("{name} is empty"))),
            value => Ok(value),
        };
        let (subject, time, data_schema) = (optional("subject")?, optional("time")?, optional("dataschema")?);
        if let Some(time) = &time
            && !is_rfc_3339(time)
        {
            return Err(malformed(format!("time {time:?} is no RFC 3339 time")));
        }
        Ok(Self { source, id, kind, subject, time, content_type, data_schema, extensions: attributes, data })
    }

    /// The JSON event format.
    pub fn to_json(&self) -> String {
        let mut object = Map::new();
        object.insert("specversion".into(), "1.0".into());
        for name in ["id", "source", "type", "subject", "time", "datacontenttype", "dataschema"] {
            if let Some(value) = self.attribute(name) {
                object.insert(name.into(), value.into());
            }
        }
        for (name, value) in &self.extensions {
            object.insert(name.clone(), value.as_str().into());
        }
        if let Data::Bytes(bytes) = &self.data {
            use base64::Engine as _;
            let text = base64::engine::general_purpose::STANDARD.encode(bytes);
            object.insert("data_base64".into(), text.into());
        }
        let mut text = Value::Object(object).to_string();
        if let Data::Json(json) = &self.data {
            // There are attributes before it.
            text.truncate(text.len() - 1);
            text.push_str(",\"data\":");
            text.push_str(json.text());
            text.push('}');
        }
        text
    }

    /// Binary mode: headers and body.
    pub fn to_http(&self) -> (HeaderMap, Vec<u8>) {
        let mut headers = HeaderMap::new();
        let mut set = |name: &str, value: &str| {
            let name = HeaderName::from_bytes(format!("ce-{name}").as_bytes());
            let value = HeaderValue::from_str(&percent_encoded(value));
            if let (Ok(name), Ok(value)) = (name, value) {
                headers.insert(name, value);
            }
        };
        set("specversion", "1.0");
        for name in ["id", "source", "type", "subject", "time", "dataschema"] {
            if let Some(value) = self.attribute(name) {
                set(name, value);
            }
        }
        for (name, value) in &self.extensions {
            set(name, value);
        }
        // In the JSON format data without a type are JSON; here it must be said.
        let implied = matches!(self.data, Data::Json(_)).then_some("application/json");
        if let Some(kind) = self.content_type.as_deref().or(implied)
            && let Ok(kind) = HeaderValue::from_str(kind)
        {
            headers.insert(CONTENT_TYPE, kind);
        }
        (headers, self.data.http_body().to_vec())
    }
}

/// In the JSON event format.
impl serde::Serialize for Event {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        RawValue::from_string(self.to_json()).map_err(serde::ser::Error::custom)?.serialize(serializer)
    }
}

impl Data {
    fn http_body(&self) -> &[u8] {
        match self {
            Data::None => &[],
            Data::Json(json) => json.text().as_bytes(),
            Data::Bytes(bytes) => bytes,
        }
    }
}

/// The id of a function's answer: `sha256(source, 0x00, id, 0x00, function)` in hex.
pub fn reply_id(source: &str, id: &str, function: &str) -> String {
    hex(&[source.as_bytes(), id.as_bytes(), function.as_bytes()])
}

/// The hex digits of the SHA-256 of parts that are joined by a zero byte.
pub fn hex(parts: &[&[u8]]) -> String {
    let mut hash = Sha256::new();
    for (index, part) in parts.iter().enumerate() {
        if index > 0 {
            hash.update([0]);
        }
        hash.update(part);
    }
    hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect()
}

fn too_large_data(length: usize) -> EventError {
    EventError::TooLarge(format!(
        "{length} bytes of data, at most {MAX_DATA} are allowed; put them into the store and send a reference"
    ))
}

fn header(headers: &HeaderMap, name: &str) -> Result<Option<String>, EventError> {
    headers
        .get(name)
        .map(|value| value.to_str().map(str::to_owned))
        .transpose()
        .map_err(|_| EventError::Malformed(format!("{name} has bytes beyond ASCII")))
}

/// A media type without its parameters.
fn essence(content_type: &str) -> String {
    content_type.split(';').next().unwrap_or_default().trim().to_ascii_lowercase()
}

/// `2026-11-21T10:00:00.5Z` or with an offset such as `+01:00`: narrower than ISO 8601, and than the library, which counts no
/// further than nanoseconds.
fn is_rfc_3339(text: &str) -> bool {
    let fits = |text: &str, shape: &str| {
        text.len() == shape.len()
            && text.bytes().zip(shape.bytes()).all(|(byte, of)| match of {
                b'0' => byte.is_ascii_digit(),
                of => byte.eq_ignore_ascii_case(&of),
            })
    };
    let Some((date_time, rest)) = text.split_at_checked(19) else { return false };
    let zone = match rest.strip_prefix('.') {
        Some(fraction) => {
            let zone = fraction.trim_start_matches(|digit: char| digit.is_ascii_digit());
            if zone.len() == fraction.len() {
                return false;
            }
            zone
        }
        None => rest,
    };
    fits(date_time, "0000-00-00T00:00:00")
        && (["Z", "+00:00", "-00:00"].into_iter().any(|shape| fits(zone, shape)))
        && format!("{date_time}{zone}").parse::<jiff::Timestamp>().is_ok()
}

fn is_json(content_type: &str) -> bool {
    let essence = essence(content_type);
    essence == "application/json" || essence == "text/json" || essence.ends_with("+json")
}

fn json_or_bytes(body: &[u8]) -> Data {
    let json = std::str::from_utf8(body).ok().and_then(|text| Json::read(text).ok());
    json.map_or_else(|| Data::Bytes(body.to_vec()), Data::Json)
}

/// Header values of the HTTP binding: everything outside printable ASCII, and space, `"` and `%`, is percent-encoded.
fn percent_encoded(value: &str) -> String {
    let mut text = String::with_capacity(value.len());
    for byte in value.bytes() {
        if (0x21..=0x7e).contains(&byte) && byte != b'"' && byte != b'%' {
            text.push(char::from(byte));
        } else {
            text.push_str(&format!("%{byte:02X}"));
        }
    }
    text
}

/// The other way round; what is no escape, or gives no UTF-8, stays as it is.
fn percent_decoded(value: &str) -> String {
    let value = match value.strip_prefix('"').and_then(|value| value.strip_suffix('"')) {
        Some(quoted) => unescaped(quoted),
        None => value.to_owned(),
    };
    let mut bytes = Vec::with_capacity(value.len());
    let mut rest = value.as_bytes();
    while let Some((&first, tail)) = rest.split_first() {
        let digit = |index: usize| tail.get(index).and_then(|byte| char::from(*byte).to_digit(16));
        let escaped = (first == b'%').then(|| Some(digit(0)? * 16 + digit(1)?)).flatten();
        match escaped.and_then(|code| u8::try_from(code).ok()) {
            Some(byte) => {
                bytes.push(byte);
                rest = &tail[2..];
            }
            None => {
                bytes.push(first);
                rest = tail;
            }
        }
    }
    String::from_utf8(bytes).unwrap_or(value)
}

/// The inside of a quoted string of HTTP: a backslash stands for the character behind it.
fn unescaped(quoted: &str) -> String {
    let mut text = String::with_capacity(quoted.len());
    let mut characters = quoted.chars();
    while let Some(character) = characters.next() {
        text.extend(if character == '\\' { characters.next() } else { Some(character) });
    }
    text
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    fn headers(pairs: &[(&str, &str)]) -> HeaderMap {
        let mut map = HeaderMap::new();
        for (name, value) in pairs {
            map.append(
                HeaderName::from_bytes(name.as_bytes()).expect("a name"),
                HeaderValue::from_bytes(value.as_bytes()).expect("a value"),
            );
        }
        map
    }

    const MINIMAL: [(&str, &str); 4] =
        [("ce-specversion", "1.0"), ("ce-id", "1"), ("ce-source", "/s"), ("ce-type", "t")];

    fn check_refused(extra: &[(&str, &str)], body: &[u8], status: u16, text: &str) {
        let pairs: Vec<_> =
            MINIMAL.into_iter().filter(|(name, _)| extra.iter().all(|(other, _)| other != name)).collect();
        let error = Event::from_http(&headers(&[&pairs, extra].concat()), body).expect_err(text);
        assert_eq!(error.status(), status, "{error}");
        assert!(error.to_string().contains(text), "{error}");
    }

    #[test]
    fn binary_mode_says_what_is_wrong() {
        check_refused(&[("ce-specversion", "0.3")], b"", 400, "specversion");
        check_refused(&[("ce-id", "")], b"", 400, "id is empty");
        check_refused(&[("ce-time", "yesterday")], b"", 400, "RFC 3339");
        check_refused(&[("ce-subject", "")], b"", 400, "subject is empty");
        check_refused(&[("ce-under_score", "x")], b"", 400, "lower-case letters and digits");
        check_refused(&[("ce-x", "1"), ("ce-x", "2")], b"", 400, "twice");
        check_refused(&[("ce-datacontenttype", "a/b")], b"", 400, "Content-Type");
        check_refused(&[("ce-data", "1")], b"", 400, "data is no attribute");
        check_refused(&[("content-type", "application/json")], b"{", 400, "no JSON");
        check_refused(
            &[("content-type", "application/cloudevents-batch+json")],
            b"[]",
            415,
            "not understood",
        );
        check_refused(&[("ce-x", &"a".repeat(5000))], b"", 413, "4096");
        check_refused(&[("ce-x", "%00")], b"", 400, "control");
        check_refused(&[], &vec![b'x'; MAX_DATA + 1], 413, "65536");
        let error =
            Event::from_http(&headers(&[("content-type", "application/json")]), b"{}").expect_err("no event");
        assert_eq!(error.status(), 415);
    }

    #[test]
    fn what_could_not_be_kept_is_refused() {
        let nested = format!("{}1{}", "[".repeat(127), "]".repeat(127));
        check_refused(&[("content-type", "application/json")], nested.as_bytes(), 400, "100 deep");
    }

    #[test]
    fn exactly_64_kib_of_data_pass() {
        let event = Event::from_http(&headers(&MINIMAL), &vec![b'x'; MAX_DATA]).expect("allowed");
        assert_eq!(event.data, Data::Bytes(vec![b'x'; MAX_DATA]));
    }

    #[test]
    fn structured_mode_says_what_is_wrong() {
        let base = json!({"specversion": "1.0", "id": "1", "source": "/s", "type": "t"});
        let cases = [
            (json!([]), "no JSON object"),
            (json!({"id": "1"}), "specversion is missing"),
            (json!({"specversion": 1}), "specversion \"1\" is not understood"),
            (json!({"x": {"a": 1}}), "attribute x"),
            (json!({"x": 1.5}), "attribute x"),
            (json!({"data": 1, "data_base64": "AA=="}), "both"),
            (json!({"data_base64": "%%"}), "data_base64"),
            (json!({"Upper": "x"}), "lower-case"),
        ];
        for (change, text) in cases {
            let mut value = base.clone();
            match (&change, value.as_object_mut()) {
                (Value::Object(change), Some(object)) if change.keys().any(|key| key != "id") => {
                    object.extend(change.clone());
                }
                _ => value = change.clone(),
            }
            let error = Event::from_json(value.to_string().as_bytes()).expect_err(text);
            assert!(error.to_string().contains(text), "{change}: {error}");
        }
    }

    #[test]
    fn an_answer_names_the_same_event_each_time_and_stays_in_the_run() {
        let event = Event::from_http(&headers(&MINIMAL), b"").expect("an event");
        let one = event.reply("validate", "dataset.validated", "digits", json!({}));
        let two = event.reply("validate", "dataset.validated", "digits", json!({}));
        assert_eq!((&one.id, one.run()), (&two.id, event.run()));
        assert_ne!(one.id, event.reply("mask", "dataset.validated", "digits", json!({})).id);
        assert_eq!(one.short_kind(), Some("dataset.validated"));
        assert_eq!(one.reply("evaluate", "x", "digits", json!({})).run(), event.run());
    }

    #[test]
    fn json_is_passed_on_as_it_was_written() {
        let body = br#"{ "b": 1.10, "a": 12345678901234567890123, "a": [18446744073709551616, "\u00e9"], "e": 1.0e2 }"#;
        let json = [("content-type", "application/json")];
        let event = Event::from_http(&headers(&[&MINIMAL[..], &json].concat()), body).expect("an event");
        assert_eq!(event.to_http().1, body);
        let kept = Event::from_json(event.to_json().as_bytes()).expect("an event");
        assert_eq!((kept.to_http().1, &kept), (body.to_vec(), &event));
    }

    #[test]
    fn the_type_of_data_is_said_and_is_no_event() {
        let bare = r#"{"specversion": "1.0", "id": "1", "source": "/s", "type": "t", "data": {"a": 1}"#;
        let event = Event::from_json(format!("{bare}}}").as_bytes()).expect("an event");
        assert_eq!(event.to_http().0[CONTENT_TYPE], "application/json");
        for kind in ["application/cloudevents+json", "", "a\\u000ab"] {
            let event = format!("{bare}, \"datacontenttype\": \"{kind}\"}}");
            assert!(Event::from_json(event.as_bytes()).is_err(), "{kind}");
        }
    }

    #[test]
    fn times_are_those_of_rfc_3339() {
        for time in
            ["2026-11-21T10:00:00Z", "2026-11-21t10:00:00.123456789123+01:00", "2026-11-21T10:00:00.5-11:30"]
        {
            assert!(is_rfc_3339(time), "{time}");
        }
        let wrong = "2026-11-21T10Z 20261121T100000Z 2026-11-21T10:00:00Z[Europe/Berlin] 2026-11-21T10:00:00+0100 2026-11-21T10:00:00 \
                     2026-11-21T10:00:00,5Z +002026-11-21T10:00:00Z 2026-13-21T10:00:00Z 2026-11-21T10:00:00.Z 2026-11-21";
        for time in wrong.split_whitespace() {
            assert!(!is_rfc_3339(time), "{time}");
        }
    }

    #[test]
    fn only_escapes_are_decoded() {
        let subject = |value: &str| {
            let pairs = [&MINIMAL[..], &[("ce-subject", value)]].concat();
            Event::from_http(&headers(&pairs), b"").expect("an event").subject.expect("a subject")
        };
        for (value, meant) in
            [("50%+5", "50%+5"), ("a%20b", "a b"), ("%4", "%4"), ("\"q\"", "q"), (r#""a\"b""#, "a\"b")]
        {
            assert_eq!(subject(value), meant);
        }
    }

    fn any_event() -> impl Strategy<Value = Event> {
        let text = "\\PC{1,20}";
        let data = prop_oneof![
            Just(Data::None),
            "\\PC{0,40}".prop_map(|text| Data::Json(json!({ "text": text, "list": [1, 2.5, null] }).into())),
        ];
        let extensions = proptest::collection::btree_map("[a-z][a-z0-9]{3,10}z", text, 0..4);
        (text, text, text, proptest::option::of(text), extensions, data).prop_map(
            |(source, id, kind, subject, extensions, data)| Event {
                source,
                id,
                kind,
                subject,
                time: Some("2026-11-21T10:00:00Z".into()),
                content_type: (data != Data::None).then(|| "application/json".into()),
                data_schema: None,
                extensions,
                data,
            },
        )
    }

    proptest! {
        #[test]
        fn both_forms_carry_every_event(event in any_event()) {
            let (headers, body) = event.to_http();
            prop_assert_eq!(Event::from_http(&headers, &body), Ok(event.clone()));
            prop_assert_eq!(Event::from_json(event.to_json().as_bytes()), Ok(event));
        }

        #[test]
        fn no_bytes_break_the_reader(body in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = Event::from_json(&body);
            let _ = Event::from_http(&headers(&MINIMAL), &body);
        }
    }
}
