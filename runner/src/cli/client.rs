//! The HTTP client of the admin API, and what a failure means to the shell.

use std::process::ExitCode;
use std::time::Duration;

use reqwest::Method;
use reqwest::blocking::{RequestBuilder, Response};
use serde::de::DeserializeOwned;

use super::{EXIT_REFUSED, EXIT_TRY_AGAIN, EXIT_UNREACHABLE, EXIT_USAGE, ServerArgs};
use crate::admin::wire::Problem;

/// Why a command did not do what was asked.
#[derive(Debug)]
pub(super) enum Failure {
    /// The server said no.
    Refused { status: u16, problem: Box<Problem>, json: bool },
    /// No answer.
    Unreachable(String),
    /// The command makes no sense as it was given.
    Usage(String),
}

impl Failure {
    /// The reason, in one line.
    pub(super) fn text(&self) -> String {
        match self {
            Failure::Refused { problem, .. } => format!("{} ({})", problem.error, problem.code),
            Failure::Unreachable(text) | Failure::Usage(text) => text.clone(),
        }
    }

    /// Says why, and gives the exit code.
    #[allow(clippy::print_stderr, reason = "this is the command line's error output")]
    pub(super) fn report(&self) -> ExitCode {
        match self {
            Failure::Refused { status, problem, json } => {
                if *json {
                    let _ = super::output::json(problem);
                }
                eprintln!("baton: {}", self.text());
                for failure in
                    problem.details.iter().flat_map(|details| details["failures"].as_array()).flatten()
                {
                    eprintln!("  {}", failure["text"].as_str().unwrap_or_default());
                    for difference in failure["differences"].as_array().into_iter().flatten() {
                        let text = |name: &str| difference[name].as_str().unwrap_or_default().to_owned();
                        let at = format!("{}{}", text("output"), text("position"));
                        eprintln!("    {at}: expected {}, got {}", text("expected"), text("got"));
                    }
                }
                // 503 and an upload under way mean "not now"; everything else stays refused.
                if *status == 503 || problem.code == "UPLOAD_IN_PROGRESS" {
                    EXIT_TRY_AGAIN
                } else {
                    EXIT_REFUSED
                }
                .into()
            }
            Failure::Unreachable(text) => {
                eprintln!("baton: {text}");
                EXIT_UNREACHABLE.into()
            }
            Failure::Usage(text) => {
                eprintln!("baton: {text}");
                EXIT_USAGE.into()
            }
        }
    }
}

/// A client of one server.
pub(super) struct Client {
    http: reqwest::blocking::Client,
    server: String,
    token: Option<String>,
    json: bool,
}

impl Client {
    /// `json`: failures are printed as JSON too.
    pub(super) fn new(arguments: &ServerArgs, json: bool) -> Result<Self, Failure> {
        let server = arguments.server.trim_end_matches('/').to_owned();
        let server = if server.contains("://") { server } else { format!("http://{server}") };
        let token = match &arguments.token_file {
            Some(path) => {
                let text = std::fs::read_to_string(path)
                    .map_err(|error| Failure::Usage(format!("cannot read {}: {error}", path.display())))?;
                // A file may hold several tokens while one replaces another; the first is ours.
                text.lines().map(str::trim).find(|line| !line.is_empty()).map(str::to_owned)
            }
            None => std::env::var("BATON_TOKEN").ok().filter(|token| !token.is_empty()),
        };
        let http = reqwest::blocking::Client::builder()
            // A push answers after load and warm-up, which may take minutes.
            .timeout(None::<Duration>)
            .connect_timeout(Duration::from_secs(10))
            .no_proxy()
            .build()
            .map_err(|error| Failure::Usage(error.to_string()))?;
        Ok(Self { http, server, token, json })
    }

    /// The server's address.
    pub(super) fn server(&self) -> &str {
        &self.server
    }

    /// A request to a path of the server.
    pub(super) fn request(&self, method: Method, path: &str) -> RequestBuilder {
        let request = self.http.request(method, format!("{}{path}", self.server));
        match &self.token {
            Some(token) => request.bearer_auth(token),
            None => request,
        }
    }

    /// Sends it and reads the answer.
    pub(super) fn send<T: DeserializeOwned>(&self, request: RequestBuilder) -> Result<T, Failure> {
        let response = self.send_raw(request)?;
        response
            .json()
            .map_err(|error| Failure::Unreachable(format!("the server's answer cannot be read: {error}")))
    }

    /// Sends it; an answer that is no success becomes a failure.
    pub(super) fn send_raw(&self, request: RequestBuilder) -> Result<Response, Failure> {
        let response = request.send().map_err(|error| {
            let cause =
                std::iter::successors(std::error::Error::source(&error), |cause| cause.source()).last();
            let cause = cause.map_or_else(|| error.to_string(), ToString::to_string);
            Failure::Unreachable(format!(
                "cannot reach {}: {cause}; is the server running? (baton serve)",
                self.server
            ))
        })?;
        let status = response.status();
        if status.is_success() {
            return Ok(response);
        }
        let text = response.text().unwrap_or_default();
        let problem = serde_json::from_str(&text).unwrap_or_else(|_| Problem {
            error: format!("the server answered {status}"),
            code: status.as_str().to_owned(),
            source: String::new(),
            request_id: String::new(),
            details: None,
        });
        Err(Failure::Refused { status: status.as_u16(), problem: Box::new(problem), json: self.json })
    }
}

/// `If-Match` for a command that names a generation.
pub(super) fn if_match(request: RequestBuilder, generation: Option<u64>) -> RequestBuilder {
    match generation {
        Some(generation) => request.header("if-match", format!("\"{generation}\"")),
        None => request,
    }
}
