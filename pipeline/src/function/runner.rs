//! The runner as functions see it: a client of its admin API.

use std::collections::BTreeMap;
use std::time::Duration;

use baton_runner::admin::wire::{Change, History, Model, Problem};
use baton_runner::error::chain;
use bytes::Bytes;
use reqwest::{Method, RequestBuilder, Response, StatusCode};

use super::{Context, Failure};

/// Parts that the runner takes, as (file in a bundle, part of the form). The rest of a bundle stays in the store.
pub(super) const PARTS: [(&str, &str); 6] = [
    ("model.onnx", "model"),
    ("model.so", "model"),
    ("contract.proto", "contract"),
    ("baton.toml", "manifest"),
    ("golden.jsonl", "golden"),
    ("provenance.json", "provenance"),
];

/// What the runner said to a push.
#[derive(Debug)]
pub(super) enum Pushed {
    Served(Change),
    Refused(Problem),
}

/// A client of one runner.
#[derive(Debug)]
pub(super) struct Runner {
    http: reqwest::Client,
    server: String,
    token: Option<String>,
}

impl Runner {
    /// The one of this context.
    ///
    /// # Errors
    /// [`Failure::Later`] if no client can be made.
    pub(super) fn of(context: &Context) -> Result<Self, Failure> {
        let http = reqwest::Client::builder()
            .timeout(Duration::from_secs(280))
            .no_proxy()
            .build()
            .map_err(|error| Failure::Later(format!("no HTTP client: {error}")))?;
        Ok(Self {
            http,
            server: context.server.trim_end_matches('/').to_owned(),
            token: context.token.clone(),
        })
    }

    /// A model and its versions; `None` if the runner has none of this name.
    ///
    /// # Errors
    /// [`Failure`] by what the runner answered.
    pub(super) async fn model(&self, model: &str) -> Result<Option<Model>, Failure> {
        let response = self.send(self.request(Method::GET, &format!("/v1/models/{model}"))).await?;
        if response.status() == StatusCode::NOT_FOUND {
            return Ok(None);
        }
        json(accepted(response).await?).await.map(Some)
    }

    /// The provenance of what is being served.
    ///
    /// # Errors
    /// [`Failure`] by what the runner answered.
    pub(super) async fn provenance(&self, model: &str) -> Result<Option<serde_json::Value>, Failure> {
        let request = self.request(Method::GET, "/v1/history").query(&[("model", model), ("limit", "1")]);
        let history: History = json(accepted(self.send(request).await?).await?).await?;
        Ok(history.entries.into_iter().next().and_then(|entry| entry.provenance))
    }

    /// A part of a version (`artifact`, `contract`, ...).
    ///
    /// # Errors
    /// [`Failure`] by what the runner answered.
    pub(super) async fn part(&self, model: &str, version: &str, part: &str) -> Result<Bytes, Failure> {
        let path = format!("/v1/models/{model}/versions/{version}/{part}");
        let response = accepted(self.send(self.request(Method::GET, &path)).await?).await?;
        response.bytes().await.map_err(|error| unreachable(&error))
    }

    /// Pushes parts (by the form's names) if the model is still at this generation; `dry_run` checks only.
    ///
    /// # Errors
    /// [`Failure::Later`] if the runner cannot be reached, is busy or fails; a refusal is [`Pushed::Refused`].
    pub(super) async fn push(
        &self,
        model: &str,
        parts: &BTreeMap<&str, Bytes>,
        generation: u64,
        dry_run: bool,
    ) -> Result<Pushed, Failure> {
        let boundary = format!("baton-{}", uuid::Uuid::new_v4().simple());
        let mut body = Vec::with_capacity(parts.values().map(|part| part.len() + 256).sum());
        for (name, part) in parts {
            body.extend_from_slice(
                format!(
                    "--{boundary}\r\ncontent-disposition: form-data; name=\"{name}\"\r\n\
                     content-type: application/octet-stream\r\n\r\n"
                )
                .as_bytes(),
            );
            body.extend_from_slice(part);
            body.extend_from_slice(b"\r\n");
        }
        body.extend_from_slice(format!("--{boundary}--\r\n").as_bytes());
        let request = self
            .request(Method::PUT, &format!("/v1/models/{model}"))
            .query(&[("dry_run", dry_run)])
            .header("content-type", format!("multipart/form-data; boundary={boundary}"))
            .header("if-match", format!("\"{generation}\""))
            .body(body);
        let response = self.send(request).await?;
        let status = response.status();
        if status.is_success() {
            return json(response).await.map(Pushed::Served);
        }
        if let Some(failure) = not_the_candidate(status) {
            return Err(failure(said(response).await));
        }
        let problem: Problem = json(response).await?;
        // Another upload of the same model, a full queue, a server that is ending: the same push may go through later.
        let passing =
            status.is_server_error() || problem.code.starts_with("UPLOAD_") && status == StatusCode::CONFLICT;
        if passing || status == StatusCode::TOO_MANY_REQUESTS {
            return Err(Failure::Later(format!("{} ({})", problem.error, problem.code)));
        }
        Ok(Pushed::Refused(problem))
    }

    fn request(&self, method: Method, path: &str) -> RequestBuilder {
        let request = self.http.request(method, format!("{}{path}", self.server));
        match &self.token {
            Some(token) => request.bearer_auth(token),
            None => request,
        }
    }

    async fn send(&self, request: RequestBuilder) -> Result<Response, Failure> {
        request.send().await.map_err(|error| unreachable(&error))
    }
}

/// An answer that says nothing of what was sent: the token is wrong, which somebody has to mend, or the upload was too slow.
fn not_the_candidate(status: StatusCode) -> Option<fn(String) -> Failure> {
    match status {
        StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => Some(Failure::Never),
        StatusCode::REQUEST_TIMEOUT => Some(Failure::Later),
        _ => None,
    }
}

async fn accepted(response: Response) -> Result<Response, Failure> {
    let status = response.status();
    if status.is_success() {
        return Ok(response);
    }
    let text = said(response).await;
    if status.is_server_error() { Err(Failure::Later(text)) } else { Err(Failure::Never(text)) }
}

/// A refusal in words.
async fn said(response: Response) -> String {
    let status = response.status();
    match json::<Problem>(response).await {
        Ok(problem) => format!("the runner refused: {} ({})", problem.error, problem.code),
        Err(_) => format!("the runner answered {status}"),
    }
}

async fn json<T: serde::de::DeserializeOwned>(response: Response) -> Result<T, Failure> {
    let status = response.status();
    let bytes = response.bytes().await.map_err(|error| unreachable(&error))?;
    serde_json::from_slice(&bytes).map_err(|_| {
        Failure::Later(format!("the runner answered {status} with something that is not its JSON"))
    })
}

fn unreachable(error: &reqwest::Error) -> Failure {
    Failure::Later(format!("the runner cannot be reached: {}", chain(error)))
}
