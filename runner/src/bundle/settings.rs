//! The settings file of a bundle (`baton.toml`), the part `manifest` of a push. Unknown keys are errors: a typing
//! mistake must not silently become the default.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::Deserialize;

use crate::error::{Code, Error, Result};
use crate::tensor::Tolerance;

/// What a bundle says about how it is to be run.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Settings {
    /// One line for people, shown in lists.
    pub description: Option<String>,
    /// Where the model runs; native models in workers, ONNX models in the server's process, unless this says so.
    pub execution: Option<Execution>,
    pub onnx: OnnxSettings,
    pub workers: WorkerSettings,
    /// Default tolerance of golden rows.
    pub golden: Tolerance,
    pub limits: LimitSettings,
    /// What fields of the contract belong to, by their full names; wins over options in the contract.
    pub bind: BTreeMap<String, FieldBinding>,
    /// What is kept of requests, on a server that keeps a request log; nothing without it.
    pub request_log: Option<RequestLogSettings>,
}

/// What a field of a contract belongs to: one line of `[bind]`, or the field's options.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct FieldBinding {
    /// The input or output.
    pub tensor: Option<String>,
    /// The column of its row.
    pub column: Option<u32>,
    /// Accepted and not read; never filled.
    pub ignore: bool,
    /// What the columns of the output stand for.
    pub label: Vec<String>,
}

/// `[onnx]`
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct OnnxSettings {
    /// Threads that one run may use inside an operator.
    pub intra_threads: usize,
}

impl Default for OnnxSettings {
    fn default() -> Self {
        Self { intra_threads: 1 }
    }
}

/// Where a model runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Execution {
    /// In the server's own process: fastest, and a crash is the server's crash.
    InProcess,
    /// In workers, which are processes of their own.
    Isolated,
}

/// `[workers]`, for models that run isolated.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct WorkerSettings {
    /// Processes; each runs one request at a time.
    pub count: usize,
    /// Memory that one may allocate, in MB (2^20 bytes).
    pub memory_mb: u64,
    /// Deaths in a row without a good answer, after which the version counts as degraded.
    pub restarts: u32,
    pub on_degraded: OnDegraded,
}

/// What happens to a version whose workers keep dying.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum OnDegraded {
    /// It stays, and its workers are started again with growing pauses.
    Keep,
    /// The version before it is served again.
    Rollback,
}

impl Default for WorkerSettings {
    fn default() -> Self {
        Self { count: 2, memory_mb: 2048, restarts: 3, on_degraded: OnDegraded::Keep }
    }
}

/// `[limits]`
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct LimitSettings {
    /// Milliseconds for one request, below the server's own limit.
    pub request_timeout_ms: Option<u64>,
}

/// `[request_log]`: which requests are kept, and what of them. Names are fields of the contract, or tensors.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RequestLogSettings {
    /// Share of the requests, 0 to 1.
    pub sample: f64,
    /// What is not written as it is.
    #[serde(default)]
    pub mask: BTreeMap<String, Mask>,
    /// What of the request is kept; all if not given.
    #[serde(default)]
    pub inputs: Option<Vec<String>>,
    /// What of the answer is kept; all if not given.
    #[serde(default)]
    pub outputs: Option<Vec<String>>,
    /// Bytes of a line; a longer one is dropped.
    #[serde(default = "default_row_bytes")]
    pub max_row_bytes: usize,
}

fn default_row_bytes() -> usize {
    64 << 10
}

/// What stands in the request log instead of a value. In the order of how much it hides: where several are said of one
/// value, the last one counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Mask {
    /// SHA-256 of the server's secret salt and the value: equal values can be told, the value cannot.
    Hash,
    /// A fixed word.
    Redact,
    /// Nothing, not even the name.
    Remove,
}

impl Settings {
    /// Reads `baton.toml`.
    ///
    /// # Errors
    /// `BAD_MANIFEST` with line and key.
    pub fn parse(bytes: &[u8]) -> Result<Self> {
        let bad = |text: String| Error::new(Code::BadManifest, text);
        let text = std::str::from_utf8(bytes).map_err(|_| bad("the manifest is no UTF-8 text".to_owned()))?;
        let settings: Settings = toml::from_str(text).map_err(|error| {
            let start = error.span().map_or(0, |span| span.start);
            let before = text.get(..start).unwrap_or("");
            let line = 1 + before.matches('\n').count();
            // What is wrong may be the value, and the parser names the key only if it does not know that.
            let key =
                before.rsplit('\n').next().unwrap_or("").split_once('=').map_or("", |(key, _)| key.trim());
            let place = if key.is_empty() { format!("line {line}") } else { format!("line {line}, {key}") };
            // The parser's message quotes nothing but the upload itself, and types of Rust.
            let message = error.message().replace('\n', " ");
            let message = ["usize", "u64", "u32"]
                .iter()
                .fold(message, |message, name| message.replace(name, "a whole number of 0 or more"));
            bad(format!("the manifest cannot be read, {place}: {message}"))
        })?;
        if !(1..=64).contains(&settings.onnx.intra_threads) {
            return Err(bad("onnx.intra_threads must be between 1 and 64".to_owned()));
        }
        if settings.limits.request_timeout_ms == Some(0) {
            return Err(bad("limits.request_timeout_ms must be at least 1".to_owned()));
        }
        let workers = &settings.workers;
        if !(1..=64).contains(&workers.count) {
            return Err(bad("workers.count must be between 1 and 64".to_owned()));
        }
        if workers.restarts == 0 {
            return Err(bad("workers.restarts must be at least 1".to_owned()));
        }
        if !(16..=1 << 20).contains(&workers.memory_mb) {
            return Err(bad("workers.memory_mb must be between 16 and 1048576".to_owned()));
        }
        let tolerance = settings.golden;
        if ![tolerance.absolute, tolerance.relative].iter().all(|value| value.is_finite() && *value >= 0.0) {
            return Err(bad("golden.absolute and golden.relative must be 0 or more".to_owned()));
        }
        if let Some(log) = &settings.request_log {
            if !(0.0..=1.0).contains(&log.sample) {
                return Err(bad("request_log.sample must be between 0 and 1".to_owned()));
            }
            if !(256..=1 << 20).contains(&log.max_row_bytes) {
                return Err(bad("request_log.max_row_bytes must be between 256 and 1048576".to_owned()));
            }
        }
        if settings.description.as_ref().is_some_and(|text| text.chars().count() > 500) {
            return Err(bad("description is longer than 500 characters".to_owned()));
        }
        Ok(settings)
    }

    /// The bundle's own time limit for a request.
    pub fn request_timeout(&self) -> Option<Duration> {
        self.limits.request_timeout_ms.map(Duration::from_millis)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_the_documentation_shows() {
        let settings = Settings::parse(
            b"description = \"iris\"\n[onnx]\nintra_threads = 2\n[golden]\nabsolute = 0.01\n[limits]\nrequest_timeout_ms = 250\n",
        )
        .expect("readable");
        assert_eq!(settings.onnx.intra_threads, 2);
        assert_eq!(settings.golden, Tolerance { absolute: 0.01, relative: 1e-4 });
        assert_eq!(settings.request_timeout(), Some(Duration::from_millis(250)));
        assert_eq!(Settings::parse(b"").expect("empty"), Settings::default());
    }

    #[test]
    fn refuses_with_line_and_key() {
        for (text, expected) in [
            ("speed = 1", "speed"),
            ("description = \"a\"\ndescription = \"b\"", "line 2"),
            ("[onnx]\nintra_threads = 0", "intra_threads"),
            ("[golden]\nabsolute = nan", "golden.absolute"),
            ("[limits]\nrequest_timeout_ms = 0", "request_timeout_ms"),
            ("[workers]\ncount = 0", "workers.count"),
            ("[workers]\nmemory_mb = 1", "workers.memory_mb"),
            ("[workers]\nrestarts = 0", "workers.restarts"),
            ("[workers]\non_degraded = \"panic\"", "line 2, on_degraded"),
            ("[workers]\ncount = \"two\"", "count: invalid type: string \"two\", expected a whole number"),
            ("execution = \"elsewhere\"", "line 1, execution"),
            ("x = [", "line 1"),
            ("[request_log]\nmask = {}", "missing field `sample`"),
            ("[request_log]\nsample = 1.5", "request_log.sample"),
            ("[request_log]\nsample = nan", "request_log.sample"),
            ("[request_log]\nsample = 1\nmask = { age = \"hide\" }", "line 3, mask"),
            ("[request_log]\nsample = 1\nmax_row_bytes = 1", "request_log.max_row_bytes"),
            ("[request_log]\nsample = 1\nshare = 1", "share"),
        ] {
            let error = Settings::parse(text.as_bytes()).expect_err(text);
            assert_eq!(error.code(), Code::BadManifest);
            assert!(error.text().contains(expected), "{text}: {error}");
        }
        let deep = format!("x = {}", "[".repeat(10_000));
        assert!(Settings::parse(deep.as_bytes()).is_err());
        assert!(Settings::parse(b"\xff").is_err());
    }
}
