//! The HTTP client of the admin API, and what a failure means to the shell.

use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use reqwest::Method;
use reqwest::blocking::{RequestBuilder, Response};
use serde::de::DeserializeOwned;

use super::{EXIT_REFUSED, EXIT_TRY_AGAIN, EXIT_UNREACHABLE, EXIT_USAGE, ServerArgs};
use crate::admin::wire::Problem;
use crate::error::{chain, root};

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
                // 503 and an upload under way mean "not now", and so does what a proxy says of a server that it does not reach;
                // everything else stays refused.
                let by_proxy = problem.source.is_empty() && matches!(status, 408 | 429 | 500..);
                if by_proxy || *status == 503 || problem.code == "UPLOAD_IN_PROGRESS" {
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

/// What the client says when nobody takes the body any more.
const BODY_NOT_TAKEN: &str = "receiver is gone";
/// To find out why.
const PROBE: Duration = Duration::from_secs(10);

/// The bearer token: the first line of a file that is not empty (it may hold several while one replaces another), else that of the
/// variable `BATON_TOKEN`. Files and variables often end in a newline, or begin with a byte order mark.
///
/// # Errors
/// In words: the file cannot be read, or holds what no header can.
pub fn token(file: Option<&Path>) -> Result<Option<String>, String> {
    let (text, from) = match file {
        Some(path) => {
            let text = std::fs::read_to_string(path);
            let text = text.map_err(|error| format!("cannot read {}: {error}", path.display()))?;
            (text, path.display().to_string())
        }
        None => (std::env::var("BATON_TOKEN").unwrap_or_default(), "BATON_TOKEN".to_owned()),
    };
    let mut lines = text.trim_start_matches('\u{feff}').lines().map(str::trim);
    let token = lines.find(|line| !line.is_empty()).map(str::to_owned);
    match token {
        Some(token) if !token.bytes().all(|byte| matches!(byte, b' '..=b'~')) => {
            Err(format!("{from} holds no token: there are signs in it that no header can have"))
        }
        token => Ok(token),
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
        let server = &arguments.server;
        let server = if server.contains("://") { server.clone() } else { format!("http://{server}") };
        let server = server.trim_end_matches('/').to_owned();
        let is_http = |url: &reqwest::Url| matches!(url.scheme(), "http" | "https") && url.has_host();
        if !reqwest::Url::parse(&server).is_ok_and(|url| is_http(&url)) {
            return Err(Failure::Usage(format!("{server} is no http:// or https:// URL")));
        }
        let token = token(arguments.token_file.as_deref()).map_err(Failure::Usage)?;
        let http = reqwest::blocking::Client::builder()
            // A push answers after load and warm-up, which may take minutes.
            .timeout(None::<Duration>)
            .connect_timeout(Duration::from_secs(10))
            // A server that is gone without a word is noticed all the same.
            .tcp_keepalive(Duration::from_secs(30))
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
        match request.send() {
            Ok(response) => self.accepted(response),
            // The body could not be handed on any more, which is all that the client then says: the connection was refused, or broke,
            // or the server answered before it had all. The same server, asked without a body, tells which.
            Err(error) if !error.is_timeout() && chain(&error).contains(BODY_NOT_TAKEN) => {
                let probe = self.request(Method::GET, "/v1/models").timeout(PROBE);
                let response = probe.send().map_err(|error| self.unreachable(&error))?;
                self.accepted(response)?;
                Err(Failure::Unreachable(format!(
                    "{} ended the connection in the middle of the upload",
                    self.server
                )))
            }
            Err(error) => Err(self.unreachable(&error)),
        }
    }

    fn unreachable(&self, error: &reqwest::Error) -> Failure {
        let server = &self.server;
        if error.is_timeout() {
            return Failure::Unreachable(format!("{server} did not answer in time"));
        }
        let cause = root(error);
        Failure::Unreachable(format!("cannot reach {server}: {cause}; is the server running? (baton serve)"))
    }

    fn accepted(&self, response: Response) -> Result<Response, Failure> {
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_the_first_line_without_what_surrounds_it() {
        let file = tempfile::NamedTempFile::new().expect("a file");
        let read = |content: &str| {
            std::fs::write(file.path(), content).expect("written");
            token(Some(file.path()))
        };
        for content in ["abc", "abc\n", "\u{feff}abc\r\n", "\n  abc \nold\n"] {
            assert_eq!(read(content), Ok(Some("abc".to_owned())), "{content:?}");
        }
        assert_eq!(read("\n"), Ok(None));
        assert_eq!(read("two words\n"), Ok(Some("two words".to_owned())));
        assert!(read("a\u{7}bc").is_err());
    }

    #[test]
    fn an_address_that_can_never_work_is_wrong_usage() {
        for server in ["ftp://127.0.0.1:9", "http://", "http://http::", ""] {
            let arguments = ServerArgs { server: server.to_owned(), token_file: None };
            assert!(matches!(Client::new(&arguments, false), Err(Failure::Usage(_))), "{server:?}");
        }
        let arguments = ServerArgs { server: "127.0.0.1:8081/".to_owned(), token_file: None };
        assert_eq!(
            Client::new(&arguments, false).map(|client| client.server).ok().as_deref(),
            Some("http://127.0.0.1:8081")
        );
    }
}
