//! `baton predict`: one call through the Open Inference Protocol, with as little to type as the model allows.

use std::path::PathBuf;

use reqwest::Method;
use serde_json::{Value, json};

use super::client::{Client, Failure};
use super::commands::segment;
use super::output;
use crate::config::Limits;
use crate::contract::Schema;

/// What to call with.
#[derive(Debug, clap::Args)]
pub struct PredictArgs {
    model: String,
    /// A method of the model's contract; without one, the call is one of tensors
    method: Option<String>,
    /// A request of the method; or {"input": [[...]]} by name, or a whole request of the protocol
    #[arg(long, value_name = "JSON", conflicts_with = "csv", required_unless_present = "csv")]
    json: Option<String>,
    /// Rows with a header: the fields of the method's rows; or columns named as the inputs, or those of the only input
    #[arg(long, value_name = "FILE")]
    csv: Option<PathBuf>,
    /// How to print the answer
    #[arg(long, value_enum, default_value = "text")]
    output: OutputForm,
}

/// How an answer is printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum OutputForm {
    Text,
    Json,
}

impl PredictArgs {
    /// Is the answer for a machine?
    pub(super) fn output_json(&self) -> bool {
        self.output == OutputForm::Json
    }
}

/// Calls the model and prints its outputs.
pub(super) fn predict(client: &Client, arguments: &PredictArgs) -> Result<(), Failure> {
    if let Some(method) = &arguments.method {
        return call_method(client, arguments, method);
    }
    let path = format!("/v2/models/{}", segment(&arguments.model));
    let metadata: Value = client.send(client.request(Method::GET, &path))?;
    let request = match (&arguments.json, &arguments.csv) {
        (Some(text), _) => from_json(text, &metadata)?,
        (None, Some(path)) => {
            let text = std::fs::read_to_string(path)
                .map_err(|error| Failure::Usage(format!("cannot read {}: {error}", path.display())))?;
            from_csv(&text, &metadata)?
        }
        (None, None) => return Err(Failure::Usage("give --json or --csv".to_owned())),
    };
    let call = client.request(Method::POST, &format!("{path}/infer")).body(request.to_string());
    let text = client.send_raw(call)?.text().map_err(|error| Failure::Unreachable(error.to_string()))?;
    if arguments.output_json() {
        output::line(&text);
        return Ok(());
    }
    let answer: Value = serde_json::from_str(&crate::tensor::json::quote_non_finite(&text))
        .map_err(|error| Failure::Unreachable(format!("the server's answer cannot be read: {error}")))?;
    let version = answer["model_version"].as_str().unwrap_or("-");
    output::line(&format!("{} version {version}", arguments.model));
    for tensor in answer["outputs"].as_array().into_iter().flatten() {
        let name = tensor["name"].as_str().unwrap_or_default();
        let datatype = tensor["datatype"].as_str().unwrap_or_default();
        output::line(&format!("{name} {datatype}{}: {}", tensor["shape"], tensor["data"]));
    }
    Ok(())
}

/// Calls a typed method and prints its answer as it comes.
fn call_method(client: &Client, arguments: &PredictArgs, method: &str) -> Result<(), Failure> {
    let source = super::contract::show(client, &arguments.model)?;
    let schema = Schema::compile("contract.proto", source.as_bytes(), &Limits::default());
    let descriptor = schema
        .and_then(|schema| schema.method(Some(method)))
        .map_err(|error| Failure::Usage(error.text().to_owned()))?;
    let path = format!("/{}/{}", descriptor.parent_service().full_name(), descriptor.name());
    let call = client.request(Method::POST, &path);
    let call = match (&arguments.json, &arguments.csv) {
        (Some(text), _) => call.header("content-type", "application/json").body(text.clone()),
        (None, Some(file)) => {
            let file = std::fs::File::open(file)
                .map_err(|error| Failure::Usage(format!("cannot read {}: {error}", file.display())))?;
            call.header("content-type", "text/csv").body(file)
        }
        (None, None) => return Err(Failure::Usage("give --json or --csv".to_owned())),
    };
    let text = client.send_raw(call)?.text().map_err(|error| Failure::Unreachable(error.to_string()))?;
    output::line(text.trim_end());
    Ok(())
}

fn inputs(metadata: &Value) -> Vec<(&str, &str, Vec<i64>)> {
    let inputs = metadata["inputs"].as_array().into_iter().flatten();
    inputs
        .map(|input| {
            let shape = input["shape"].as_array().into_iter().flatten().filter_map(Value::as_i64).collect();
            (
                input["name"].as_str().unwrap_or_default(),
                input["datatype"].as_str().unwrap_or_default(),
                shape,
            )
        })
        .collect()
}

fn from_json(text: &str, metadata: &Value) -> Result<Value, Failure> {
    let given: Value = serde_json::from_str(text)
        .map_err(|error| Failure::Usage(format!("the input is no JSON: {error}")))?;
    if given["inputs"].is_array() {
        return Ok(given);
    }
    let known = inputs(metadata);
    let by_name = match (given, known.as_slice()) {
        (Value::Object(by_name), _) => by_name,
        // A bare array is meant for the only input.
        (array @ Value::Array(_), [(name, ..)]) => [((*name).to_owned(), array)].into_iter().collect(),
        _ => return Err(Failure::Usage("expected {\"<input>\": [...]}".to_owned())),
    };
    let tensors: Vec<Value> = by_name
        .into_iter()
        .map(|(name, data)| {
            let datatype =
                known.iter().find(|(known, ..)| *known == name).map_or("FP32", |(_, datatype, _)| datatype);
            json!({ "name": name, "datatype": datatype, "shape": nesting(&data), "data": data })
        })
        .collect();
    Ok(json!({ "inputs": tensors }))
}

fn nesting(data: &Value) -> Vec<usize> {
    let mut shape = Vec::new();
    let mut level = data;
    while let Some(array) = level.as_array() {
        shape.push(array.len());
        match array.first() {
            Some(first) => level = first,
            None => break,
        }
    }
    shape
}

fn from_csv(text: &str, metadata: &Value) -> Result<Value, Failure> {
    let usage = |text: String| Failure::Usage(text);
    let mut reader = csv::Reader::from_reader(text.as_bytes());
    let header: Vec<String> = reader
        .headers()
        .map_err(|error| usage(format!("the CSV cannot be read: {error}")))?
        .iter()
        .map(str::to_owned)
        .collect();
    let rows: Vec<csv::StringRecord> = reader
        .records()
        .collect::<Result<_, _>>()
        .map_err(|error| usage(format!("the CSV cannot be read: {error}")))?;
    let known = inputs(metadata);
    let cell = |datatype: &str, text: &str| -> Value {
        if datatype == "BYTES" {
            text.into()
        } else {
            serde_json::from_str(text).unwrap_or_else(|_| text.into())
        }
    };
    let column = |index: usize, datatype: &str| -> Vec<Value> {
        rows.iter().map(|row| cell(datatype, row.get(index).unwrap_or_default())).collect()
    };
    if let [(name, datatype, shape)] = known.as_slice()
        && shape.len() == 2
        && !(header.len() == 1 && header[0] == *name)
    {
        let data: Vec<Value> =
            rows.iter().map(|row| row.iter().map(|text| cell(datatype, text)).collect()).collect();
        let shape = [rows.len(), header.len()];
        return Ok(
            json!({ "inputs": [{ "name": name, "datatype": datatype, "shape": shape, "data": data }] }),
        );
    }
    let tensors: Result<Vec<Value>, Failure> = known
        .iter()
        .map(|(name, datatype, shape)| {
            let index = header.iter().position(|title| title == name).ok_or_else(|| {
                usage(format!("the CSV has no column {name:?}; its columns are {header:?}"))
            })?;
            let shape: Vec<usize> = if shape.len() == 2 { vec![rows.len(), 1] } else { vec![rows.len()] };
            Ok(json!({ "name": name, "datatype": datatype, "shape": shape, "data": column(index, datatype) }))
        })
        .collect();
    Ok(json!({ "inputs": tensors? }))
}
