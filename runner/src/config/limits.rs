//! Every numeric limit of the server in one struct: value, unit, reason. `baton limits` prints this table.
//!
//! Limits that a request can meet are plain fields read where they are enforced; none is repeated as a literal
//! elsewhere.

use std::time::Duration;

/// All limits. The defaults are what the documentation states.
#[derive(Debug, Clone)]
pub struct Limits {
    pub request_body: usize,
    pub tensors: usize,
    pub tensor_bytes: usize,
    pub json_depth: usize,
    pub request_time: Duration,
    pub inline_run: Duration,
    pub queue: usize,
    pub connections: usize,
    pub streams: u32,
    pub header_bytes: usize,
    pub header_time: Duration,
    pub idle_time: Duration,
    pub body_idle: Duration,
    pub drain: Duration,
    pub artifact: u64,
    pub contract: u64,
    pub contract_messages: usize,
    pub contract_fields: usize,
    pub contract_depth: usize,
    pub rows: usize,
    pub csv_files: usize,
    pub decode_depth: usize,
    pub json_values: usize,
    pub manifest: u64,
    pub golden: u64,
    pub provenance: u64,
    pub signature: u64,
    pub golden_rows: usize,
    pub uploads: usize,
    pub upload_idle: Duration,
    pub upload_floor: u64,
    pub prepare_time: Duration,
    pub warm_up_time: Duration,
    pub native_load_time: Duration,
    pub pinned_libraries: usize,
    pub worker_queue_bytes: usize,
    pub subgraph_depth: usize,
    pub kept_ready: usize,
    pub kept_ready_bytes: u64,
    pub kept_versions: usize,
    pub kept_bytes: u64,
    pub kept_pointers: usize,
    pub request_id: usize,
    pub request_log_queue: usize,
    pub request_log_queue_bytes: usize,
    pub request_log_file: u64,
    pub request_log_age: Duration,
}

const MIB: usize = 1 << 20;

impl Default for Limits {
    fn default() -> Self {
        Self {
            request_body: 64 * MIB,
            tensors: 256,
            tensor_bytes: 64 * MIB,
            json_depth: 32,
            request_time: Duration::from_secs(30),
            inline_run: Duration::from_micros(200),
            queue: 512,
            connections: 10_000,
            streams: 1_000,
            header_bytes: 64 << 10,
            header_time: Duration::from_secs(10),
            idle_time: Duration::from_secs(180),
            body_idle: Duration::from_secs(10),
            drain: Duration::from_secs(30),
            artifact: 2 << 30,
            contract: 256 << 10,
            contract_messages: 500,
            contract_fields: 5_000,
            contract_depth: 16,
            rows: 256 << 10,
            csv_files: 8,
            decode_depth: 32,
            json_values: 4_000_000,
            manifest: 64 << 10,
            golden: 16 << 20,
            provenance: 1 << 20,
            signature: 16 << 10,
            golden_rows: 1_000,
            uploads: 8,
            upload_idle: Duration::from_secs(10),
            upload_floor: 64 << 10,
            prepare_time: Duration::from_secs(120),
            warm_up_time: Duration::from_secs(5),
            native_load_time: Duration::from_secs(10),
            pinned_libraries: 16,
            worker_queue_bytes: 256 * MIB,
            subgraph_depth: 8,
            kept_ready: 1,
            kept_ready_bytes: 256 << 20,
            kept_versions: 100,
            kept_bytes: 8 << 30,
            kept_pointers: 1_000,
            request_id: 256,
            request_log_queue: 16_384,
            request_log_queue_bytes: 64 * MIB,
            request_log_file: 64 << 20,
            request_log_age: Duration::from_secs(3600),
        }
    }
}

/// One line of `baton limits`.
#[derive(Debug, Clone, serde::Serialize)]
pub struct Limit {
    pub name: &'static str,
    pub value: String,
    pub reason: &'static str,
}

impl Limits {
    /// The table for people and machines.
    pub fn table(&self) -> Vec<Limit> {
        let seconds = |time: Duration| format!("{} s", time.as_secs());
        let row = |name, value: String, reason| Limit { name, value, reason };
        vec![
            row(
                "request_body",
                bytes(self.request_body as u64),
                "one inference request, after decompression",
            ),
            row("tensors", self.tensors.to_string(), "inputs or outputs named in one request"),
            row("tensor_bytes", bytes(self.tensor_bytes as u64), "one tensor"),
            row("json_depth", self.json_depth.to_string(), "arrays in arrays in a request's data"),
            row(
                "request_time",
                seconds(self.request_time),
                "answer or DEADLINE; a shorter deadline of the caller counts",
            ),
            row(
                "inline_run",
                format!("{} us", self.inline_run.as_micros()),
                "models that run faster are run on the connection's own thread",
            ),
            row(
                "queue",
                self.queue.to_string(),
                "requests waiting for a compute thread; more are OVERLOADED",
            ),
            row("connections", self.connections.to_string(), "open connections a port"),
            row("streams", self.streams.to_string(), "concurrent HTTP/2 streams a connection"),
            row("header_bytes", bytes(self.header_bytes as u64), "request line and headers"),
            row("idle_time", seconds(self.idle_time), "between two requests of a connection"),
            row("header_time", seconds(self.header_time), "to send the headers of a request"),
            row("body_idle", seconds(self.body_idle), "without a byte of a request's body"),
            row("drain", seconds(self.drain), "after SIGTERM, for what was accepted"),
            row("artifact", bytes(self.artifact), "the model file"),
            row("contract", bytes(self.contract), "the .proto source"),
            row("contract_messages", self.contract_messages.to_string(), "message types of a contract"),
            row("contract_fields", self.contract_fields.to_string(), "fields of all messages of a contract"),
            row("contract_depth", self.contract_depth.to_string(), "message types inside each other"),
            row("rows", self.rows.to_string(), "rows of one typed request; CSV may have any number"),
            row(
                "csv_files",
                self.csv_files.to_string(),
                "CSV files being answered at once; more are OVERLOADED",
            ),
            row("decode_depth", self.decode_depth.to_string(), "messages in messages of a typed request"),
            row("json_values", self.json_values.to_string(), "values of one typed JSON request"),
            row("manifest", bytes(self.manifest), "baton.toml"),
            row("golden", bytes(self.golden), "golden.jsonl"),
            row("provenance", bytes(self.provenance), "provenance.json"),
            row("signature", bytes(self.signature), "the detached signature"),
            row(
                "golden_rows",
                self.golden_rows.to_string(),
                "rows of golden.jsonl; all are run at every push",
            ),
            row("uploads", self.uploads.to_string(), "uploads at once, of all models; of one model, one"),
            row("upload_idle", seconds(self.upload_idle), "without a byte of an upload"),
            row(
                "upload_floor",
                format!("{}/s", bytes(self.upload_floor)),
                "average rate of an upload after 30 s",
            ),
            row("prepare_time", seconds(self.prepare_time), "to load, test and warm up a version"),
            row("warm_up_time", seconds(self.warm_up_time), "one warm-up run"),
            row(
                "native_load_time",
                seconds(self.native_load_time),
                "a native library's constructors, create and describe",
            ),
            row(
                "pinned_libraries",
                self.pinned_libraries.to_string(),
                "native libraries of earlier versions that may stay mapped in the server's own process",
            ),
            row(
                "worker_queue_bytes",
                bytes(self.worker_queue_bytes as u64),
                "inputs of requests that wait for a worker of one model; more are OVERLOADED",
            ),
            row("subgraph_depth", self.subgraph_depth.to_string(), "subgraphs in subgraphs of an ONNX model"),
            row(
                "kept_ready",
                self.kept_ready.to_string(),
                "earlier versions of a model kept in memory for an instant roll-back",
            ),
            row(
                "kept_ready_bytes",
                bytes(self.kept_ready_bytes),
                "artifact bytes of all versions kept so, of all models",
            ),
            row(
                "kept_versions",
                self.kept_versions.to_string(),
                "versions of a model whose files stay in the store",
            ),
            row("kept_bytes", bytes(self.kept_bytes), "artifact bytes of a model's stored versions"),
            row("kept_pointers", self.kept_pointers.to_string(), "entries of a model's activation log"),
            row(
                "request_id",
                bytes(self.request_id as u64),
                "a caller's name for a request; a longer one is not taken",
            ),
            row(
                "request_log_queue",
                self.request_log_queue.to_string(),
                "requests waiting to be written to the request log; more are dropped from it",
            ),
            row(
                "request_log_queue_bytes",
                bytes(self.request_log_queue_bytes as u64),
                "their tensors; also what one request may write",
            ),
            row("request_log_file", bytes(self.request_log_file), "a file of the request log"),
            row("request_log_age", seconds(self.request_log_age), "after which the next file is begun"),
        ]
    }
}

fn bytes(count: u64) -> String {
    match count {
        _ if count >= 1 << 30 && count.is_multiple_of(1 << 30) => format!("{} GiB", count >> 30),
        _ if count >= 1 << 20 && count.is_multiple_of(1 << 20) => format!("{} MiB", count >> 20),
        _ if count >= 1 << 10 && count.is_multiple_of(1 << 10) => format!("{} KiB", count >> 10),
        _ => format!("{count} B"),
    }
}
