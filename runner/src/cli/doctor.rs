//! `baton doctor`: looks for what could keep Baton from working here, and says what to do.

use std::path::PathBuf;
use std::time::Duration;

use reqwest::Method;

use super::client::{Client, Failure};
use super::{ServerArgs, output};
use crate::engine::onnx::{OnnxRuntime, find_library};
use crate::store::Store;

/// What to look at.
#[derive(Debug, clap::Args)]
pub struct DoctorArgs {
    /// Only ask whether the data port answers; for health checks
    #[arg(long)]
    live: bool,
    /// Data port that --live asks
    #[arg(long, env = "BATON_LISTEN", default_value = "127.0.0.1:8080", value_name = "ADDRESS")]
    data: String,
    /// Store to look at
    #[arg(long, env = "BATON_STORE", default_value = ".baton", value_name = "FOLDER")]
    store: PathBuf,
    /// ONNX Runtime library
    #[arg(long, env = "ORT_DYLIB_PATH", value_name = "FILE")]
    onnxruntime: Option<PathBuf>,
}

/// Runs every check; fails if one does.
pub(super) fn doctor(arguments: &DoctorArgs, server: &ServerArgs) -> Result<(), Failure> {
    if arguments.live {
        return live(&arguments.data);
    }
    let mut faults = 0;
    let mut check = |name: &str, result: Result<String, String>| {
        let (mark, text) = match result {
            Ok(text) => ("ok", text),
            Err(text) => {
                faults += 1;
                ("FAULT", text)
            }
        };
        output::line(&format!("{mark:5}  {name}: {text}"));
    };
    let library = find_library(arguments.onnxruntime.as_deref());
    check(
        "ONNX Runtime",
        OnnxRuntime::load(&library, &crate::config::Limits::default())
            .map(|runtime| format!("{} at {}", runtime.version(), library.display()))
            .map_err(|error| error.text().to_owned()),
    );
    check("descriptors", descriptors());
    let running = Client::new(server, false).and_then(|client| {
        let answer = client.send_raw(client.request(Method::GET, "/v1/models"));
        answer.map(|_| client.server().to_owned())
    });
    match running {
        // The store is the running server's; opening it here would only find it locked.
        Ok(address) => check("server", Ok(format!("answers at {address}"))),
        Err(Failure::Refused { problem, .. }) => {
            check("server", Err(format!("answers at {}, but: {}", server.server, problem.error)));
        }
        Err(_) => {
            check("server", Ok(format!("none at {} (start one with `baton serve`)", server.server)));
            check("store", store(&arguments.store));
        }
    }
    if faults == 0 { Ok(()) } else { Err(Failure::Usage(format!("{faults} of the checks found a fault"))) }
}

fn live(address: &str) -> Result<(), Failure> {
    // A server that listens on every address is asked over loopback.
    let address = address.replace("0.0.0.0", "127.0.0.1").replace("[::]", "[::1]");
    let unreachable =
        |error: reqwest::Error| Failure::Unreachable(format!("no answer from {address}: {error}"));
    let client = reqwest::blocking::Client::builder()
        .timeout(Duration::from_secs(3))
        .no_proxy()
        .build()
        .map_err(unreachable)?;
    let response = client.get(format!("http://{address}/livez")).send().map_err(unreachable)?;
    match response.status().is_success() {
        true => Ok(()),
        false => Err(Failure::Unreachable(format!("{address} answered {}", response.status()))),
    }
}

fn descriptors() -> Result<String, String> {
    let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile).current.unwrap_or(u64::MAX);
    if limit < 1024 {
        return Err(format!("only {limit} open files are allowed; raise it with `ulimit -n 65536`"));
    }
    Ok(format!("{limit} open files are allowed"))
}

fn store(path: &std::path::Path) -> Result<String, String> {
    if !path.exists() {
        return Ok(format!("{} will be made at the first start", path.display()));
    }
    let store = Store::open(path).map_err(|error| crate::error::Error::from(error).text().to_owned())?;
    let models = store.models().map_err(|error| error.to_string())?;
    Ok(format!("{} models in {}", models.len(), path.display()))
}
