//! `baton fn NAME`: a function in front of a port, for the local engine and for Knative alike.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;

use baton_runner::cli::{EXIT_SOFTWARE, EXIT_UNREACHABLE, EXIT_USAGE};

use crate::function::{self, Context};
use crate::manifest::FUNCTIONS;
use crate::store::Store;

/// Which function, where, and what it may use.
#[derive(Debug, clap::Args)]
pub struct FnArgs {
    /// Name of the function
    #[arg(value_parser = clap::builder::PossibleValuesParser::new(FUNCTIONS))]
    name: String,
    /// Address to answer at; without it, port PORT of all addresses, or 127.0.0.1:8080
    #[arg(long, env = "LISTEN_ADDRESS", value_name = "ADDRESS")]
    listen: Option<SocketAddr>,
    #[arg(long, env = "PORT", hide = true)]
    port: Option<u16>,
    /// The artifact store: a folder, file:///... or s3://bucket/prefix
    #[arg(long, env = "BATON_ARTIFACTS", default_value = ".baton/pipeline/store", value_name = "ADDRESS")]
    store: String,
    /// Admin port of the runner
    #[arg(long, env = "BATON_SERVER", default_value = "http://127.0.0.1:8081", value_name = "URL")]
    server: String,
    /// File with the runner's bearer token; without it, the variable BATON_TOKEN is used
    #[arg(long, env = "BATON_TOKEN_FILE", value_name = "FILE")]
    token_file: Option<PathBuf>,
}

/// Serves until SIGTERM.
pub(super) fn run(arguments: FnArgs) -> ExitCode {
    baton_runner::telemetry::log::start(tracing::Level::INFO, false);
    match serve(arguments) {
        Ok(()) => ExitCode::SUCCESS,
        Err((code, text)) => {
            tracing::error!("{text}");
            code.into()
        }
    }
}

fn serve(arguments: FnArgs) -> Result<(), (u8, String)> {
    let usage = |text: String| (EXIT_USAGE, text);
    let address = match (arguments.listen, arguments.port) {
        (Some(address), _) => address,
        (None, Some(port)) => SocketAddr::from(([0, 0, 0, 0], port)),
        (None, None) => SocketAddr::from(([127, 0, 0, 1], 8080)),
    };
    let variable = |name: &str| std::env::var(name).ok();
    function::check(&arguments.name, variable).map_err(usage)?;
    let is_http = |url: &url::Url| matches!(url.scheme(), "http" | "https") && url.has_host();
    if !url::Url::parse(&arguments.server).is_ok_and(|url| is_http(&url)) {
        return Err(usage(format!(
            "the runner's address is no http:// or https:// URL: {:?}",
            arguments.server
        )));
    }
    let token = baton_runner::cli::token(arguments.token_file.as_deref()).map_err(usage)?;
    // One thread for the connections; calls that compute do so on threads of their own, which end when idle.
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| (EXIT_SOFTWARE, format!("no runtime: {error}")))?;
    let store = Store::open(&arguments.store).map_err(|error| usage(error.to_string()))?;
    runtime.block_on(store.probe()).map_err(|error| {
        let code = if error.is_transient() { EXIT_UNREACHABLE } else { EXIT_USAGE };
        (code, error.to_string())
    })?;
    let name = arguments.name;
    let context = Context {
        name: std::env::var("K_SERVICE").unwrap_or_else(|_| name.clone()),
        store,
        server: arguments.server,
        token,
        policy: variable(function::POLICY).unwrap_or_default(),
    };
    let context = Arc::new(context);
    let failed = |error: String| (EXIT_SOFTWARE, format!("cannot answer at {address}: {error}"));
    // The records can be asked as well.
    if name == "history" {
        let database = std::env::var("BATON_HISTORY").unwrap_or_else(|_| ":memory:".to_owned());
        let served = function::history::serve(address, context, &database);
        return runtime.block_on(served).map_err(|error| failed(error.to_string()));
    }
    let function = function::named(&name).ok_or_else(|| usage(format!("there is no function {name:?}")))?;
    runtime.block_on(function::serve(address, function, context)).map_err(|error| failed(error.to_string()))
}
