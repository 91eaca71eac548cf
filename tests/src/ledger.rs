//! Calls at a steady rate over REST and gRPC, with every answer checked against the version that it names.
//!
//! Open loop: a call is due at its time, whether or not earlier ones were answered, so that a stall of the server
//! shows as late answers and never as fewer calls.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use baton_proto::inference as oip;
use oip::grpc_inference_service_client::GrpcInferenceServiceClient;
use oip::infer_parameter::ParameterChoice;
use serde_json::Value;
use tonic::transport::Channel;

/// What was sent and what came of it.
#[derive(Debug, Default)]
pub struct Ledger {
    pub sent: AtomicU64,
    pub answered: AtomicU64,
    /// Answers that no version would have given, or that contradict themselves.
    pub mixed: AtomicU64,
    faults: Mutex<Vec<String>>,
    by_version: Mutex<BTreeMap<String, u64>>,
    micros: Mutex<Vec<u64>>,
}

impl Ledger {
    fn fault(&self, text: String) {
        let mut faults = self.faults.lock().unwrap_or_else(PoisonError::into_inner);
        if faults.len() < 20 {
            faults.push(text);
        }
    }

    /// The first few things that went wrong.
    pub fn faults(&self) -> Vec<String> {
        self.faults.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Calls without a right answer.
    pub fn lost(&self) -> u64 {
        self.sent.load(Ordering::SeqCst) - self.answered.load(Ordering::SeqCst)
    }

    /// Answers by version.
    pub fn versions(&self) -> BTreeMap<String, u64> {
        self.by_version.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// A quantile of the answer times in milliseconds.
    pub fn quantile_ms(&self, quantile: f64) -> f64 {
        let mut micros = self.micros.lock().unwrap_or_else(PoisonError::into_inner).clone();
        micros.sort_unstable();
        let index = ((micros.len() as f64 - 1.0) * quantile).max(0.0) as usize;
        micros.get(index).copied().unwrap_or(0) as f64 / 1000.0
    }

    /// Every call was answered, and no answer was mixed.
    pub fn assert_whole(&self) {
        let mixed = self.mixed.load(Ordering::SeqCst);
        assert!(self.lost() == 0 && mixed == 0, "{} lost, {mixed} mixed: {:#?}", self.lost(), self.faults());
    }

    fn check(&self, expected: &Expected, answer: &Answered, due: Instant) {
        self.answered.fetch_add(1, Ordering::SeqCst);
        self.micros.lock().unwrap_or_else(PoisonError::into_inner).push(due.elapsed().as_micros() as u64);
        *self
            .by_version
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .entry(answer.version.clone())
            .or_default() += 1;
        let consistent = answer.version == answer.header_version
            && answer.digest == answer.header_digest
            && expected(&answer.version) == Some(answer.value);
        if !consistent {
            self.mixed.fetch_add(1, Ordering::SeqCst);
            self.fault(format!("mixed: {answer:?}"));
        }
    }
}

/// One answer, and who it says it is from.
#[derive(Debug)]
struct Answered {
    value: f32,
    version: String,
    header_version: String,
    digest: String,
    header_digest: String,
}

/// The `k` of a version's number, if there is such a version.
type Expected = dyn Fn(&str) -> Option<f32> + Send + Sync;

/// A load on one `add` model.
pub struct Load {
    stop: Arc<AtomicBool>,
    ledger: Arc<Ledger>,
    thread: std::thread::JoinHandle<()>,
}

impl Load {
    /// Starts to call `model` at `data`, `per_second` times over REST and as often over gRPC. `expected` tells the `k`
    /// of a version's number.
    pub fn start(
        data: &str,
        model: &'static str,
        per_second: u32,
        expected: impl Fn(&str) -> Option<f32> + Send + Sync + 'static,
    ) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let ledger = Arc::new(Ledger::default());
        let (data, stopped, counted) = (data.to_owned(), Arc::clone(&stop), Arc::clone(&ledger));
        let thread = std::thread::spawn(move || {
            let runtime =
                tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
            runtime.block_on(drive(data, model, per_second, Arc::new(expected), stopped, counted));
        });
        Self { stop, ledger, thread }
    }

    pub fn ledger(&self) -> &Ledger {
        &self.ledger
    }

    /// Stops sending, waits for every answer, and gives the ledger.
    pub fn finish(self) -> Arc<Ledger> {
        self.stop.store(true, Ordering::SeqCst);
        self.thread.join().expect("the load ends");
        self.ledger
    }
}

async fn drive(
    data: String,
    model: &'static str,
    per_second: u32,
    expected: Arc<Expected>,
    stop: Arc<AtomicBool>,
    ledger: Arc<Ledger>,
) {
    let http = reqwest::Client::builder().no_proxy().build().expect("a client");
    let url = format!("http://{data}/v2/models/{model}/infer");
    let channel = Channel::from_shared(format!("http://{data}"))
        .expect("an address")
        .connect()
        .await
        .expect("connected");
    let period = Duration::from_secs(1) / per_second;
    let mut due = Instant::now();
    let mut calls = tokio::task::JoinSet::new();
    while !stop.load(Ordering::SeqCst) {
        tokio::time::sleep_until(due.into()).await;
        for over_grpc in [false, true] {
            ledger.sent.fetch_add(1, Ordering::SeqCst);
            let (http, url, channel) = (http.clone(), url.clone(), channel.clone());
            let (expected, ledger) = (Arc::clone(&expected), Arc::clone(&ledger));
            calls.spawn(async move {
                let answer =
                    if over_grpc { call_grpc(channel, model).await } else { call_rest(&http, &url).await };
                match answer {
                    Ok(answer) => ledger.check(&*expected, &answer, due),
                    Err(fault) => ledger
                        .fault(format!("lost over {}: {fault}", if over_grpc { "gRPC" } else { "REST" })),
                }
            });
        }
        due += period;
        while calls.try_join_next().is_some() {}
    }
    while calls.join_next().await.is_some() {}
}

async fn call_rest(http: &reqwest::Client, url: &str) -> Result<Answered, String> {
    let body = r#"{"inputs":[{"name":"x","datatype":"FP32","shape":[1,4],"data":[0,0,0,0]}]}"#;
    let response = http.post(url).body(body).send().await.map_err(|error| format!("{error:?}"))?;
    let status = response.status();
    let header = |name: &str| {
        response.headers().get(name).and_then(|value| value.to_str().ok()).unwrap_or_default().to_owned()
    };
    let (header_version, header_digest) = (header("baton-model-version"), header("baton-digest"));
    let answer: Value = response.json().await.map_err(|error| format!("{error:?}"))?;
    if !status.is_success() {
        return Err(format!("{status} {answer}"));
    }
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    Ok(Answered {
        value: answer["outputs"][0]["data"][0].as_f64().ok_or("no value")? as f32,
        version: text(&answer["model_version"]),
        header_version,
        digest: text(&answer["parameters"]["baton-digest"]),
        header_digest,
    })
}

async fn call_grpc(channel: Channel, model: &str) -> Result<Answered, String> {
    let request = oip::ModelInferRequest {
        model_name: model.to_owned(),
        inputs: vec![oip::model_infer_request::InferInputTensor {
            name: "x".to_owned(),
            datatype: "FP32".to_owned(),
            shape: vec![1, 4],
            ..Default::default()
        }],
        raw_input_contents: vec![vec![0; 16].into()],
        ..Default::default()
    };
    let response = GrpcInferenceServiceClient::new(channel)
        .model_infer(request)
        .await
        .map_err(|status| status.to_string())?;
    let header = |name: &str| {
        response.metadata().get(name).and_then(|value| value.to_str().ok()).unwrap_or_default().to_owned()
    };
    let (header_version, header_digest) = (header("baton-model-version"), header("baton-digest"));
    let answer = response.into_inner();
    let digest = match answer
        .parameters
        .get("baton-digest")
        .and_then(|parameter| parameter.parameter_choice.clone())
    {
        Some(ParameterChoice::StringParam(digest)) => digest,
        _ => String::new(),
    };
    let first =
        answer.raw_output_contents.first().and_then(|raw| raw.first_chunk::<4>()).ok_or("no value")?;
    Ok(Answered {
        value: f32::from_le_bytes(*first),
        version: answer.model_version,
        header_version,
        digest,
        header_digest,
    })
}
