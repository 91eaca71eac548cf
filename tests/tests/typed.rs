//! A bundle is one generation: whoever calls while contracts and models are swapped together sees a field, a value and
//! a version that belong to each other.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use baton_tests::{Runner, onnx, soak_factor};
use bytes::{Buf, BufMut, Bytes};
use serde_json::{Value, json};
use tonic::codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder};

/// What an answer says: the version in its headers, the field that holds the value, and the value.
type Seen = (String, u64, f64);

/// Version `k`: the model adds `k`, the answer has the one field `v<k>` with the number `k`.
fn contract(k: u64) -> String {
    format!(
        "syntax = \"proto3\"; package d; service D {{ rpc Call(Q) returns (R); }}\n\
         message Q {{ repeated float x = 1; }} message R {{ repeated float v{k} = {k}; }}"
    )
}

/// Pushes model and contract `k`; the version, or `None` if another writer was at it.
fn push(runner: &Runner, k: u64) -> Option<String> {
    let form = reqwest::blocking::multipart::Form::new()
        .part("model", reqwest::blocking::multipart::Part::bytes(onnx::add(k as f32)))
        .text("contract", contract(k));
    let url = format!("http://{}/v1/models/d?on_breaking=allow", runner.admin());
    let response = runner.http().put(url).multipart(form).send().expect("an answer");
    let status = response.status().as_u16();
    let answer: Value = response.json().expect("JSON");
    match status {
        201 => answer["version"].as_str().map(str::to_owned),
        // Another change is under way, or came first.
        409 | 412 => None,
        _ => panic!("{status} {answer}"),
    }
}

struct Raw;

impl Codec for Raw {
    type Encode = Bytes;
    type Decode = Bytes;
    type Encoder = Raw;
    type Decoder = Raw;

    fn encoder(&mut self) -> Raw {
        Raw
    }

    fn decoder(&mut self) -> Raw {
        Raw
    }
}

impl Encoder for Raw {
    type Item = Bytes;
    type Error = tonic::Status;

    fn encode(&mut self, item: Bytes, out: &mut EncodeBuf<'_>) -> Result<(), tonic::Status> {
        out.put(item);
        Ok(())
    }
}

impl Decoder for Raw {
    type Item = Bytes;
    type Error = tonic::Status;

    fn decode(&mut self, from: &mut DecodeBuf<'_>) -> Result<Option<Bytes>, tonic::Status> {
        Ok(Some(from.copy_to_bytes(from.remaining())))
    }
}

/// The field's number and first value of an answer: tag, length, floats.
fn field_of(mut bytes: Bytes) -> (u64, f64) {
    let mut varint = || {
        let (mut value, mut shift) = (0_u64, 0);
        loop {
            let byte = bytes.get_u8();
            value |= u64::from(byte & 0x7f) << shift;
            shift += 7;
            if byte < 0x80 {
                return value;
            }
        }
    };
    let number = varint() >> 3;
    assert_eq!(varint(), 16, "four floats");
    (number, bytes.get_f32_le().into())
}

async fn call_typed(address: String, stop: Arc<AtomicBool>) -> Vec<Seen> {
    let channel = tonic::transport::Channel::from_shared(format!("http://{address}")).expect("an address");
    let mut client = tonic::client::Grpc::new(channel.connect().await.expect("connected"));
    let request = Bytes::from([&[0x0a, 16][..], &[0; 16]].concat());
    let mut seen = Vec::new();
    while !stop.load(Ordering::Relaxed) {
        client.ready().await.expect("ready");
        let path = http::uri::PathAndQuery::from_static("/d.D/Call");
        let answer = client.unary(tonic::Request::new(request.clone()), path, Raw).await.expect("an answer");
        let version = answer
            .metadata()
            .get("baton-model-version")
            .expect("a version")
            .to_str()
            .expect("text")
            .to_owned();
        let (number, value) = field_of(answer.into_inner());
        seen.push((version, number, value));
    }
    seen
}

fn call_json(runner: &Runner, stop: &AtomicBool) -> Vec<Seen> {
    let url = format!("http://{}/d.D/Call", runner.data());
    let mut seen = Vec::new();
    while !stop.load(Ordering::Relaxed) {
        let response = runner
            .http()
            .post(&url)
            .header("content-type", "application/json")
            .body(r#"{"x":[0,0,0,0]}"#)
            .send()
            .expect("an answer");
        let version = response.headers()["baton-model-version"].to_str().expect("text").to_owned();
        let answer: Value = response.json().expect("JSON");
        let (name, values) = answer.as_object().and_then(|fields| fields.iter().next()).expect("one field");
        let number = name.trim_start_matches('v').parse().expect("v<k>");
        seen.push((version, number, values[0].as_f64().expect("a number")));
    }
    seen
}

fn call_tensor(runner: &Runner, stop: &AtomicBool) -> Vec<Seen> {
    let mut seen = Vec::new();
    while !stop.load(Ordering::Relaxed) {
        let (value, version) = runner.call_add("d");
        seen.push((version, value as u64, value));
    }
    seen
}

#[test]
fn contract_and_model_are_swapped_as_one() {
    let runner = Runner::start();
    let versions: Mutex<HashMap<String, u64>> = Mutex::default();
    let first = push(&runner, 1).expect("the first version");
    versions.lock().expect("unpoisoned").insert(first, 1);
    let (stop, next) = (Arc::new(AtomicBool::new(false)), AtomicU64::new(2));
    let duration = Duration::from_secs(4) * soak_factor();

    let seen: Vec<Seen> = std::thread::scope(|scope| {
        let mut callers = Vec::new();
        for _ in 0..2 {
            let (address, stop) = (runner.data().to_owned(), Arc::clone(&stop));
            callers.push(scope.spawn(move || {
                let runtime =
                    tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
                runtime.block_on(async {
                    let many = (0..8).map(|_| tokio::spawn(call_typed(address.clone(), Arc::clone(&stop))));
                    let mut seen = Vec::new();
                    for caller in many.collect::<Vec<_>>() {
                        seen.extend(caller.await.expect("no panic"));
                    }
                    seen
                })
            }));
        }
        callers.push(scope.spawn(|| call_json(&runner, &stop)));
        callers.push(scope.spawn(|| call_tensor(&runner, &stop)));
        let writers: Vec<_> = (0..2)
            .map(|writer| {
                let (runner, versions, next, stop) = (&runner, &versions, &next, &stop);
                scope.spawn(move || {
                    while !stop.load(Ordering::Relaxed) {
                        let k = next.fetch_add(1, Ordering::Relaxed);
                        if let Some(version) = push(runner, k) {
                            versions.lock().expect("unpoisoned").insert(version, k);
                        }
                        if writer == 1 {
                            // Back to an older contract, in one pointer store.
                            let (status, answer) = runner.post("/v1/models/d:rollback");
                            assert!([200, 409, 412].contains(&status), "{status} {answer}");
                        }
                        std::thread::sleep(Duration::from_millis(10));
                    }
                })
            })
            .collect();
        std::thread::sleep(duration);
        stop.store(true, Ordering::Relaxed);
        writers.into_iter().for_each(|writer| writer.join().expect("no panic"));
        callers.into_iter().flat_map(|caller| caller.join().expect("no panic")).collect()
    });

    let versions = versions.into_inner().expect("unpoisoned");
    let mixed: Vec<&Seen> = seen
        .iter()
        .filter(|(version, number, value)| versions.get(version) != Some(number) || *number as f64 != *value)
        .collect();
    println!("{} answers of {} versions, {} mixed", seen.len(), versions.len(), mixed.len());
    assert!(mixed.is_empty(), "{} mixed, the first: {:?}", mixed.len(), &mixed[..mixed.len().min(5)]);
    assert!(versions.len() > 10 && seen.len() > 1_000, "{} versions, {} answers", versions.len(), seen.len());
}

#[test]
fn a_refused_contract_changes_nothing() {
    let runner = Runner::start();
    let version = push(&runner, 7).expect("pushed");
    let url = format!("http://{}/v1/models/d/contract", runner.admin());
    for (source, code) in [
        ("syntax = \"proto3\"; message", "CONTRACT_SYNTAX"),
        (&*contract(7).replace("repeated float x", "string x"), "CONTRACT_MODEL_MISMATCH"),
        (&*contract(8), "CONTRACT_BREAKING"),
    ] {
        let response = runner.http().put(&url).body(source.to_owned()).send().expect("an answer");
        assert!(response.status().is_client_error());
        let answer: Value = response.json().expect("JSON");
        assert_eq!(answer["code"], json!(code), "{answer}");
        assert_eq!(runner.active("d"), Some(version.clone()));
        assert_eq!(runner.call_add("d"), (7.0, version.clone()));
    }
}
