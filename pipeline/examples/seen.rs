//! A function in Rust, on the server of the built-in ones: answers each event with what it saw of it
//! (`pipeline/conformance/README.md`).

use std::collections::BTreeMap;
use std::env;
use std::net::SocketAddr;
use std::sync::Arc;

use base64::Engine as _;
use baton_pipeline::event::{Data, Event};
use baton_pipeline::function::{Call, Context, serve};
use baton_pipeline::store::Store;
use serde_json::{Value, json};

/// Characters or bytes beyond which only their number is told.
const LONG: usize = 1024;

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let variable = |name: &str, default: &str| env::var(name).unwrap_or_else(|_| default.to_owned());
    let address: SocketAddr = variable("LISTEN_ADDRESS", "127.0.0.1:8080").parse()?;
    let context = Context {
        name: variable("K_SERVICE", "seen"),
        store: Store::open("memory:///")?,
        server: String::new(),
        token: None,
        policy: String::new(),
    };
    Ok(serve(address, seen, Arc::new(context)).await?)
}

fn seen(context: Arc<Context>, event: Event) -> Call {
    Box::pin(async move {
        let mut data = json!({ "attributes": attributes(&event) });
        match &event.data {
            Data::None => {}
            Data::Json(json) => match json.value() {
                Value::String(text) if text.len() > LONG => data["length"] = text.len().into(),
                value => data["data"] = value,
            },
            Data::Bytes(bytes) if bytes.len() > LONG => data["length"] = bytes.len().into(),
            Data::Bytes(bytes) => {
                data["data_base64"] = base64::engine::general_purpose::STANDARD.encode(bytes).into();
            }
        }
        let mut answer = event.reply(&context.name, "example.seen", "", data);
        answer.subject.clone_from(&event.subject);
        Ok(Some(answer))
    })
}

fn attributes(event: &Event) -> BTreeMap<&str, &str> {
    let known = ["id", "source", "type", "subject", "time", "datacontenttype", "dataschema"];
    let names = known.into_iter().chain(event.extensions.keys().map(String::as_str));
    names.filter_map(|name| Some((name, event.attribute(name)?))).collect()
}
