//! A function on AWS Lambda, behind a function URL: answers each event with what it saw of it (`pipeline/conformance/README.md`).
//!
//! Checks what it must to answer at all; who sends events through the engine has them checked before.

use std::collections::BTreeMap;
use std::env;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use lambda_http::{Body, Error, Request, Response, run, service_fn};
use percent_encoding::percent_decode_str;
use serde_json::{Map, Value, json};
use sha2::{Digest, Sha256};

const STRUCTURED: &str = "application/cloudevents+json";
/// Characters or bytes beyond which only their number is told.
const LONG: usize = 1024;

#[tokio::main]
async fn main() -> Result<(), Error> {
    run(service_fn(answer)).await
}

async fn answer(request: Request) -> Result<Response<Body>, Error> {
    Ok(match read(&request) {
        Ok((attributes, data)) => {
            let event = seen(&attributes, data).to_string();
            Response::builder().header("content-type", STRUCTURED).body(event.into())?
        }
        Err(reason) => Response::builder().status(400).body(reason.into())?,
    })
}

/// Attributes as text, and the data: under `data`, under `data_base64`, or none.
fn read(request: &Request) -> Result<(BTreeMap<String, String>, Map<String, Value>), String> {
    let content_type = request.headers().get("content-type").and_then(|value| value.to_str().ok()).unwrap_or_default();
    let (attributes, data) = if essence(content_type) == STRUCTURED {
        structured(request.body())?
    } else {
        binary(request, content_type)?
    };
    let missing: Vec<&str> = ["specversion", "id", "source", "type"]
        .into_iter()
        .filter(|name| attributes.get(*name).is_none_or(String::is_empty))
        .collect();
    if missing.is_empty() { Ok((attributes, data)) } else { Err(format!("no CloudEvent: {missing:?} is missing")) }
}

type Parts = (BTreeMap<String, String>, Map<String, Value>);

fn structured(body: &[u8]) -> Result<Parts, String> {
    let mut event: Map<String, Value> = serde_json::from_slice(body).map_err(|error| error.to_string())?;
    let mut data = Map::new();
    for name in ["data", "data_base64"] {
        if let Some(value) = event.remove(name) {
            data.insert(name.to_owned(), value);
        }
    }
    let mut attributes = BTreeMap::new();
    for (name, value) in event {
        let text = match value {
            Value::Null => continue,
            Value::String(text) => text,
            Value::Bool(_) => value.to_string(),
            Value::Number(number) if number.is_i64() => number.to_string(),
            _ => return Err(format!("{name} is no text, integer or boolean")),
        };
        attributes.insert(name, text);
    }
    let kind = attributes.get("datacontenttype").map_or("application/json", String::as_str);
    if let (false, Some(Value::String(text))) = (is_json(kind), data.get("data")) {
        data = Map::from_iter([("data_base64".to_owned(), STANDARD.encode(text).into())]);
    }
    Ok((attributes, data))
}

fn binary(request: &Request, content_type: &str) -> Result<Parts, String> {
    let mut attributes = BTreeMap::new();
    for (name, value) in request.headers() {
        let Some(name) = name.as_str().strip_prefix("ce-") else { continue };
        let text = value.to_str().map_err(|_| format!("ce-{name} has bytes beyond ASCII"))?;
        let text = percent_decode_str(text).decode_utf8().map_err(|_| format!("ce-{name} is no UTF-8"))?;
        attributes.insert(name.to_owned(), text.into_owned());
    }
    if !content_type.is_empty() {
        attributes.insert("datacontenttype".to_owned(), content_type.to_owned());
    }
    let body: &[u8] = request.body();
    let mut data = Map::new();
    if body.is_empty() {
    } else if is_json(content_type) {
        data.insert("data".to_owned(), serde_json::from_slice(body).map_err(|error| error.to_string())?);
    } else {
        data.insert("data_base64".to_owned(), STANDARD.encode(body).into());
    }
    Ok((attributes, data))
}

fn seen(attributes: &BTreeMap<String, String>, mut data: Map<String, Value>) -> Value {
    let name = env::var("K_SERVICE").unwrap_or_else(|_| "seen".to_owned());
    let (source, id) = (&attributes["source"], &attributes["id"]);
    let length = match (data.get("data"), data.get("data_base64")) {
        (Some(Value::String(text)), _) => text.len(),
        (_, Some(Value::String(text))) => STANDARD.decode(text).map_or(0, |bytes| bytes.len()),
        _ => 0,
    };
    if length > LONG {
        data = Map::from_iter([("length".to_owned(), length.into())]);
    }
    let mut told = attributes.clone();
    told.remove("specversion");
    data.insert("attributes".to_owned(), json!(told));
    let run = attributes.get("pipelinerun").cloned().unwrap_or_else(|| digest(&[source, id])[..16].to_owned());
    let mut event = json!({
        "specversion": "1.0",
        // From the request: an event that is delivered twice is answered by one event.
        "id": digest(&[source, id, &name]),
        "source": format!("/baton/functions/{name}"),
        "type": "dev.baton.example.seen.v1",
        "pipelinerun": run,
        "datacontenttype": "application/json",
        "data": data,
    });
    if let Some(subject) = attributes.get("subject") {
        event["subject"] = subject.as_str().into();
    }
    event
}

fn digest(parts: &[&str]) -> String {
    Sha256::digest(parts.join("\0")).iter().map(|byte| format!("{byte:02x}")).collect()
}

fn essence(content_type: &str) -> String {
    content_type.split(';').next().unwrap_or_default().trim().to_ascii_lowercase()
}

fn is_json(content_type: &str) -> bool {
    let essence = essence(content_type);
    essence == "application/json" || essence == "text/json" || essence.ends_with("+json")
}
