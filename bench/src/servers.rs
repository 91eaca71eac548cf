//! The two sides as processes: Baton's release binary, and this binary again as the empty servers. And what is sent.

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use baton_proto::inference as oip;
use bytes::{BufMut, Bytes, BytesMut};
use prost::Message;
use reqwest::blocking::Client;

use crate::load::Kind;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the repository").to_owned()
}

/// The sample model: logistic regression on four floats, trained on the iris data.
pub fn sample_model() -> Vec<u8> {
    std::fs::read(root().join("sample-models/iris/v2/model.onnx")).expect("the sample model")
}

/// The same as a native model, in C. `make native` builds it.
pub fn native_model() -> Vec<u8> {
    std::fs::read(root().join("target/native/iris.so")).expect("`make native` builds it")
}

pub const ROW: [f32; 4] = [5.1, 3.5, 1.4, 0.2];
const JSON: &str = r#"{"inputs":[{"name":"X","datatype":"FP32","shape":[1,4],"data":[5.1,3.5,1.4,0.2]}]}"#;
const BINARY: &str = concat!(
    r#"{"inputs":[{"name":"X","datatype":"FP32","shape":[1,4],"parameters":{"binary_data_size":16}}],"#,
    r#""parameters":{"binary_data_output":true}}"#
);
const INFER: &str = "/v2/models/small/infer";

/// The bytes of a request: a framed gRPC message, or a whole HTTP/1.1 request.
pub fn request(kind: Kind) -> Bytes {
    match kind {
        Kind::Grpc => tensor_request("small", "X", &ROW),
        Kind::Typed => typed_request(&ROW),
        Kind::Json => http_request("", JSON.as_bytes()),
        Kind::Binary => {
            let body = [BINARY.as_bytes(), &floats(&ROW)].concat();
            http_request(&format!("inference-header-content-length: {}\r\n", BINARY.len()), &body)
        }
    }
}

/// A row of floats as the Open Inference Protocol sends it, framed.
pub fn tensor_request(model: &str, input: &str, row: &[f32]) -> Bytes {
    let message = oip::ModelInferRequest {
        model_name: model.to_owned(),
        inputs: vec![oip::model_infer_request::InferInputTensor {
            name: input.to_owned(),
            datatype: "FP32".to_owned(),
            shape: vec![1, row.len() as i64],
            ..Default::default()
        }],
        raw_input_contents: vec![floats(row).into()],
        ..Default::default()
    };
    framed(&message.encode_to_vec())
}

/// A row of floats as `message Row { repeated float x = 1; }`, framed.
pub fn typed_request(row: &[f32]) -> Bytes {
    let bytes = floats(row);
    let mut message = BytesMut::new();
    message.put_u8(0x0a);
    prost::encoding::encode_varint(bytes.len() as u64, &mut message);
    message.put_slice(&bytes);
    framed(&message)
}

/// The contract of [`typed_request`].
pub const WIDE_CONTRACT: &str = "syntax = \"proto3\"; package bench; service Wide { rpc Call(Row) returns (Largest); }\n\
    message Row { repeated float x = 1; } message Largest { float y = 1; }";

fn framed(message: &[u8]) -> Bytes {
    let mut framed = BytesMut::new();
    framed.put_u8(0);
    framed.put_u32(message.len() as u32);
    framed.put_slice(message);
    framed.freeze()
}

fn floats(row: &[f32]) -> Vec<u8> {
    row.iter().flat_map(|value| value.to_le_bytes()).collect()
}

fn http_request(header: &str, body: &[u8]) -> Bytes {
    let head =
        format!("POST {INFER} HTTP/1.1\r\nhost: localhost\r\n{header}content-length: {}\r\n\r\n", body.len());
    [head.as_bytes(), body].concat().into()
}

/// A model of 45 MB whose weights are used by each run.
pub fn large_model(k: f32) -> Vec<u8> {
    baton_tests::onnx::add_heavy(k, 45_000_000)
}

/// Microseconds of CPU that a process has used.
pub fn cpu_micros(pid: u32) -> f64 {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    let fields: Vec<&str> = stat.rsplit(") ").next().unwrap_or_default().split(' ').collect();
    let ticks: f64 = [11, 12].iter().filter_map(|index| fields.get(*index)?.parse::<f64>().ok()).sum();
    // USER_HZ is 100 on Linux.
    ticks * 10_000.0
}

/// A child process, ended with its owner.
struct Process(Child);

impl Process {
    fn start(command: &mut Command) -> (Self, impl Iterator<Item = String>) {
        let mut child =
            command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().expect("the process starts");
        let lines = BufReader::new(child.stdout.take().expect("its output"))
            .lines()
            .map(|line| line.expect("a line"));
        (Self(child), lines)
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Baton's release binary with a store of its own.
pub struct Baton {
    process: Process,
    data: String,
    admin: String,
    http: Client,
    _store: tempfile::TempDir,
}

impl Baton {
    pub fn start() -> Self {
        let store = tempfile::TempDir::new().expect("a folder");
        let binary =
            std::env::var_os("BATON_BIN").map_or_else(|| root().join("target/release/baton"), PathBuf::from);
        let mut command = Command::new(binary);
        command
            .args(["serve", "--allow-native-in-process", "--listen", "127.0.0.1:0"])
            .args(["--admin-listen", "127.0.0.1:0", "--store"])
            .arg(store.path());
        let (process, mut lines) = Process::start(&mut command);
        let mut address = |port: &str| {
            let line = lines.next().expect("Baton starts; `make build` makes it");
            line.strip_prefix(&format!("{port} listening on ")).expect("an address").to_owned()
        };
        let (data, admin) = (address("data"), address("admin"));
        Self {
            process,
            data,
            admin,
            http: Client::builder().no_proxy().build().expect("a client"),
            _store: store,
        }
    }

    pub fn data(&self) -> &str {
        &self.data
    }

    pub fn pid(&self) -> u32 {
        self.process.0.id()
    }

    pub fn push(&self, model: &str, artifact: &[u8]) {
        let url = format!("http://{}/v1/models/{model}/artifact", self.admin);
        let response = self.http.put(url).body(artifact.to_vec()).send().expect("an answer");
        assert!(response.status().is_success(), "{}", response.text().unwrap_or_default());
    }

    /// With one more part, `contract` or `manifest`.
    pub fn push_with(&self, model: &str, artifact: &[u8], part: &'static str, text: &str) {
        let form = reqwest::blocking::multipart::Form::new()
            .part("model", reqwest::blocking::multipart::Part::bytes(artifact.to_vec()))
            .text(part, text.to_owned());
        let url = format!("http://{}/v1/models/{model}?on_breaking=allow", self.admin);
        let response = self.http.put(url).multipart(form).send().expect("an answer");
        assert!(response.status().is_success(), "{}", response.text().unwrap_or_default());
    }

    /// One real answer of each kind, for the empty servers to repeat.
    pub fn record(&self, folder: &Path) {
        let write = |name: &str, bytes: &[u8]| std::fs::write(folder.join(name), bytes).expect("written");
        for (name, header, body) in [
            ("json", None, JSON.as_bytes().to_vec()),
            ("binary", Some(BINARY.len()), [BINARY.as_bytes(), &floats(&ROW)].concat()),
        ] {
            let mut request = self.http.post(format!("http://{}{INFER}", self.data)).body(body);
            if let Some(length) = header {
                request = request.header("inference-header-content-length", length);
            }
            let response = request.send().expect("an answer");
            assert!(response.status().is_success());
            let kept =
                response.headers().iter().filter(|(name, _)| *name != "date" && *name != "content-length");
            let headers: String =
                kept.map(|(name, value)| format!("{name}: {}\n", value.to_str().expect("text"))).collect();
            write(&format!("{name}.headers"), headers.as_bytes());
            write(name, &response.bytes().expect("a body"));
        }
        let message = request(Kind::Grpc).slice(5..);
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        let answer = runtime.block_on(async {
            let channel =
                tonic::transport::Channel::from_shared(format!("http://{}", self.data)).expect("an address");
            let channel = channel.connect().await.expect("connected");
            let mut client = oip::grpc_inference_service_client::GrpcInferenceServiceClient::new(channel);
            let request = oip::ModelInferRequest::decode(message).expect("our own message");
            client.model_infer(request).await.expect("an answer")
        });
        let headers: String = ["baton-model-version", "baton-generation", "baton-digest"]
            .map(|name| {
                format!("{name}: {}\n", answer.metadata().get(name).expect("signed").to_str().expect("text"))
            })
            .concat();
        write("grpc.headers", headers.as_bytes());
        write("grpc", &answer.into_inner().encode_to_vec());
    }

    /// Mean time of the engine's own run, in microseconds.
    pub fn engine_micros(&self, model: &str) -> f64 {
        let url = format!("http://{}/v2/models/{model}/stats", self.data);
        let stats: serde_json::Value = self.http.get(url).send().expect("an answer").json().expect("JSON");
        let infer = &stats["model_stats"][0]["inference_stats"]["compute_infer"];
        infer["ns"].as_f64().unwrap_or(0.0) / infer["count"].as_f64().unwrap_or(1.0) / 1000.0
    }
}

/// The empty servers, in a process of their own.
pub struct Anchor {
    process: Process,
    addresses: Vec<String>,
}

impl Anchor {
    pub fn start(folder: &Path) -> Self {
        let mut command = Command::new(std::env::current_exe().expect("this binary"));
        command.arg("anchor").arg(folder);
        let (process, lines) = Process::start(&mut command);
        let address = |line: String| line.split(' ').nth(1).expect("an address").to_owned();
        Self { process, addresses: lines.take(3).map(address).collect() }
    }

    pub fn pid(&self) -> u32 {
        self.process.0.id()
    }

    pub fn address(&self, kind: Kind) -> &str {
        let index = match kind {
            Kind::Grpc | Kind::Typed => 0,
            Kind::Binary => 1,
            Kind::Json => 2,
        };
        &self.addresses[index]
    }
}
