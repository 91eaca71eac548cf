//! Settings of the server: what was given (arguments, environment), checked into [`Config`].
//!
//! Nothing else in the tree reads the environment or parses an address. A setting that cannot be accepted ends the
//! start with one line that names it.

pub mod limits;

use std::net::SocketAddr;
use std::path::PathBuf;

pub use limits::Limits;

use crate::error::{Code, Error, Result};

/// Arguments of `baton serve`; each can be given by the environment variable beside it.
#[derive(Debug, Clone, clap::Args)]
pub struct ServeArgs {
    /// Folder that keeps bundles and what is active; made if it is missing
    #[arg(long, env = "BATON_STORE", default_value = ".baton", value_name = "FOLDER")]
    pub store: PathBuf,
    /// Data port: Open Inference Protocol over REST and gRPC
    #[arg(long, env = "BATON_LISTEN", default_value = "127.0.0.1:8080", value_name = "ADDRESS")]
    pub listen: SocketAddr,
    /// Admin port: pushes, roll-back, metrics, documentation
    #[arg(long, env = "BATON_ADMIN_LISTEN", default_value = "127.0.0.1:8081", value_name = "ADDRESS")]
    pub admin_listen: SocketAddr,
    /// File with the bearer token that the admin port requires
    #[arg(long, env = "BATON_ADMIN_TOKEN_FILE", value_name = "FILE")]
    pub admin_token_file: Option<PathBuf>,
    /// File with the bearer token that the data port requires
    #[arg(long, env = "BATON_DATA_TOKEN_FILE", value_name = "FILE")]
    pub data_token_file: Option<PathBuf>,
    /// Serve a port beyond loopback without a credential: `data`, or `all` for both ports
    #[arg(long, env = "BATON_INSECURE", value_enum, num_args = 0..=1, require_equals = true,
          default_missing_value = "all", value_name = "PORTS")]
    pub insecure: Option<Insecure>,
    /// Host name under which the admin port is called, if not an address or `localhost`; may be repeated
    #[arg(long = "admin-host", env = "BATON_ADMIN_HOSTS", value_delimiter = ',', value_name = "NAME")]
    pub admin_hosts: Vec<String>,
    /// ONNX Runtime library; searched for beside the binary and in the build's cache if not given
    #[arg(long, env = "ORT_DYLIB_PATH", value_name = "FILE")]
    pub onnxruntime: Option<PathBuf>,
    /// Let native models whose manifest asks for it run in the server's own process: their crash is the server's crash
    #[arg(long, env = "BATON_ALLOW_NATIVE_IN_PROCESS")]
    pub allow_native_in_process: bool,
    /// Threads that serve the data port [default: one a core]
    #[arg(long, env = "BATON_IO_THREADS", value_name = "N")]
    pub io_threads: Option<usize>,
    /// Threads that run models slower than the inline limit [default: one a core]
    #[arg(long, env = "BATON_COMPUTE_THREADS", value_name = "N")]
    pub compute_threads: Option<usize>,
    /// Earlier versions of a model kept in memory for an instant roll-back
    #[arg(long, env = "BATON_KEEP_READY", value_name = "N")]
    pub keep_ready: Option<usize>,
    /// Versions of a model whose files stay in the store
    #[arg(long, env = "BATON_KEEP_VERSIONS", value_name = "N")]
    pub keep_versions: Option<usize>,
    /// Seconds to answer what was accepted after SIGTERM
    #[arg(long, env = "BATON_DRAIN_SECONDS", value_name = "SECONDS")]
    pub drain_seconds: Option<u64>,
    /// Folder for samples of requests and answers, of models whose manifest has [request_log]; none are kept without it
    #[arg(long, env = "BATON_REQUEST_LOG", value_name = "FOLDER")]
    pub request_log: Option<PathBuf>,
    /// File with the secret, 16 bytes or more, that masks of the sort `hash` need
    #[arg(long, env = "BATON_REQUEST_LOG_SALT_FILE", value_name = "FILE", requires = "request_log")]
    pub request_log_salt_file: Option<PathBuf>,
    /// Bytes of all files of the request log; beyond it the oldest are removed
    #[arg(long, env = "BATON_REQUEST_LOG_MAX_BYTES", default_value_t = 1 << 30, value_name = "BYTES")]
    pub request_log_max_bytes: u64,
    /// Log lines as text for people or JSON for machines
    #[arg(long, env = "BATON_LOG_FORMAT", value_enum, default_value = "text")]
    pub log_format: LogFormat,
    /// Least severe log lines that are written
    #[arg(long, env = "BATON_LOG_LEVEL", default_value = "info", value_name = "LEVEL")]
    pub log_level: tracing::Level,
}

/// Which ports may be served beyond loopback without a credential.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Insecure {
    Data,
    All,
}

/// How log lines are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum LogFormat {
    Text,
    Json,
}

/// Checked settings.
#[derive(Debug)]
pub struct Config {
    pub store: PathBuf,
    pub data: Listen,
    pub admin: Listen,
    pub admin_hosts: Vec<String>,
    pub onnxruntime: Option<PathBuf>,
    pub native_in_process: bool,
    pub io_threads: usize,
    pub compute_threads: usize,
    pub request_log: Option<RequestLogConfig>,
    pub limits: Limits,
}

/// Where samples of requests are kept.
#[derive(Debug)]
pub struct RequestLogConfig {
    pub folder: PathBuf,
    pub salt_file: Option<PathBuf>,
    pub max_bytes: u64,
}

/// Below this a file of the request log could not hold a few rows of the largest size.
const LEAST_REQUEST_LOG: u64 = 4 << 20;

/// A port and the file with its token, if it has one.
#[derive(Debug)]
pub struct Listen {
    pub address: SocketAddr,
    pub token_file: Option<PathBuf>,
}

impl ServeArgs {
    /// Checks the settings against each other.
    ///
    /// # Errors
    /// `BAD_CONFIG` with the sentence that says what to change.
    pub fn check(self) -> Result<Config> {
        let allowed_without =
            |insecure: &[Insecure]| self.insecure.is_some_and(|given| insecure.contains(&given));
        check_exposed(
            "data",
            "--listen",
            self.listen,
            self.data_token_file.is_some() || allowed_without(&[Insecure::Data, Insecure::All]),
        )?;
        check_exposed(
            "admin",
            "--admin-listen",
            self.admin_listen,
            self.admin_token_file.is_some() || allowed_without(&[Insecure::All]),
        )?;
        let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        let threads = |name: &str, given: Option<usize>| match given {
            Some(0) | Some(1025..) => bad(format!("--{name} must be between 1 and 1024")),
            given => Ok(given.unwrap_or(cores)),
        };
        let mut limits = Limits::default();
        if let Some(count) = self.keep_ready {
            limits.kept_ready = count;
        }
        if let Some(count) = self.keep_versions {
            if count == 0 {
                return bad("--keep-versions must be at least 1".to_owned());
            }
            limits.kept_versions = count;
        }
        if let Some(seconds) = self.drain_seconds {
            limits.drain = std::time::Duration::from_secs(seconds);
        }
        if self.request_log_max_bytes < LEAST_REQUEST_LOG {
            return bad(format!("--request-log-max-bytes must be at least {LEAST_REQUEST_LOG}"));
        }
        let (salt_file, max_bytes) = (self.request_log_salt_file, self.request_log_max_bytes);
        let request_log = self.request_log.map(|folder| RequestLogConfig { folder, salt_file, max_bytes });
        Ok(Config {
            store: self.store,
            data: Listen { address: self.listen, token_file: self.data_token_file },
            admin: Listen { address: self.admin_listen, token_file: self.admin_token_file },
            admin_hosts: self.admin_hosts,
            onnxruntime: self.onnxruntime,
            native_in_process: self.allow_native_in_process,
            io_threads: threads("io-threads", self.io_threads)?,
            compute_threads: threads("compute-threads", self.compute_threads)?,
            request_log,
            limits,
        })
    }
}

/// Closed by default: beyond loopback only with a credential, or with the words that take the responsibility.
fn check_exposed(port: &str, flag: &str, address: SocketAddr, covered: bool) -> Result<()> {
    if address.ip().is_loopback() || covered {
        return Ok(());
    }
    bad(format!(
        "{flag} {address} would serve the {port} port beyond this machine without a credential: give \
         --{port}-token-file FILE with a bearer token, listen on 127.0.0.1, or say --insecure={} to serve it to \
         everyone who can reach it",
        if port == "data" { "data" } else { "all" },
    ))
}

fn bad<T>(text: String) -> Result<T> {
    Err(Error::new(Code::BadConfig, text))
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Cli {
        #[command(flatten)]
        serve: ServeArgs,
    }

    fn check(arguments: &[&str]) -> Result<Config> {
        let arguments = std::iter::once("baton").chain(arguments.iter().copied());
        Cli::try_parse_from(arguments)
            .map_err(|error| Error::new(Code::BadConfig, error.to_string()))?
            .serve
            .check()
    }

    #[test]
    fn beyond_loopback_needs_a_credential_or_plain_words() {
        for (arguments, accepted) in [
            (&[][..], true),
            (&["--listen", "[::1]:1", "--admin-listen", "127.8.0.1:2"], true),
            (&["--listen", "0.0.0.0:8080"], false),
            (&["--listen", "0.0.0.0:8080", "--data-token-file", "t"], true),
            (&["--listen", "0.0.0.0:8080", "--admin-token-file", "t"], false),
            (&["--listen", "0.0.0.0:8080", "--insecure=data"], true),
            (&["--admin-listen", "0.0.0.0:8081"], false),
            (&["--admin-listen", "0.0.0.0:8081", "--insecure=data"], false),
            (&["--admin-listen", "0.0.0.0:8081", "--insecure"], true),
            (&["--admin-listen", "[::]:8081", "--admin-token-file", "t"], true),
        ] {
            let result = check(arguments);
            assert_eq!(result.is_ok(), accepted, "{arguments:?}: {result:?}");
        }
        let text = check(&["--listen", "0.0.0.0:8080"]).expect_err("refused").to_string();
        assert!(text.contains("--data-token-file"), "{text}");
    }
}
