//! One call of a typed method: its version and plans, pinned.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::HeaderMap;

use crate::contract::{Decoded, Method};
use crate::error::{Code, Error, Result};
use crate::inference::headers::sign_headers;
use crate::inference::infer::{Answer, Inference, Inputs, Target, Wanted};
use crate::requestlog::RequestId;
use crate::telemetry::Phase;
use crate::tensor::Tensor;

/// A method of a version.
#[derive(Clone)]
pub(super) struct Call {
    pub inference: Inference,
    pub target: Target,
    method: usize,
    timeout: Option<Duration>,
    /// If the model has a request log.
    request_id: Option<RequestId>,
}

impl Call {
    /// Finds the method at a path. Without a name of the caller's own (`named`) a logged call gets a new one.
    ///
    /// # Errors
    /// Those of [`Inference::typed_target`].
    pub(super) fn find(
        inference: &Inference,
        path: &str,
        digest: Option<&str>,
        named: Option<RequestId>,
    ) -> Result<Self> {
        let (target, method) = inference.typed_target(path, digest)?;
        let request_id = target.is_logged().then(|| named.unwrap_or_else(RequestId::generated));
        Ok(Self { inference: inference.clone(), target, method, timeout: None, request_id })
    }

    /// Says who answers, and what the call is called.
    pub(super) fn sign(&self, headers: &mut HeaderMap) {
        sign_headers(&self.target, self.request_id.as_ref(), headers);
    }

    /// The call for message `number` of its stream, from 0.
    pub(super) fn message(&self, number: u64) -> Self {
        Self { request_id: self.request_id.as_ref().map(|id| id.message(number)), ..self.clone() }
    }

    /// The call for a piece of a file that begins with this row.
    pub(super) fn piece(&self, first_row: u64) -> Self {
        Self { request_id: self.request_id.as_ref().map(|id| id.piece(first_row)), ..self.clone() }
    }

    /// The same call with the caller's own time limit.
    pub(super) fn within(self, timeout: Option<Duration>) -> Self {
        Self { timeout, ..self }
    }

    /// The method's plans.
    ///
    /// # Errors
    /// None in practice: the route was made from this contract.
    pub(super) fn method(&self) -> Result<&Method> {
        let contract = self.target.version().contract.as_ref();
        let method = contract.and_then(|contract| contract.methods.get(self.method));
        method.ok_or_else(|| Error::new(Code::Internal, "a route has no method"))
    }

    /// Runs the model on decoded rows; `None` if there are none, so that there is nothing to run.
    pub(super) async fn run(&self, decoded: Result<Decoded>) -> Result<Option<Answer>> {
        let method = self.method()?;
        let many = method.response.is_batch() || method.descriptor.is_server_streaming();
        if many && decoded.as_ref().is_ok_and(|decoded| decoded.rows == 0) {
            return Ok(None);
        }
        let outputs = Wanted::At(method.response.outputs().collect());
        let request_id = self.request_id.clone();
        let inputs =
            |decoded: Decoded| Inputs { tensors: decoded.inputs, outputs, timeout: self.timeout, request_id };
        self.inference.infer(self.target.clone(), |_| decoded.map(inputs)).await.map(Some)
    }

    /// From one message to one message, in protobuf bytes.
    pub(super) async fn unary(&self, request: &Bytes) -> Result<Vec<u8>> {
        self.answer(self.method()?.request.decode(request)).await
    }

    /// One message for decoded rows.
    pub(super) async fn answer(&self, decoded: Result<Decoded>) -> Result<Vec<u8>> {
        let Some(answer) = self.run(decoded).await? else { return Ok(Vec::new()) };
        self.encode(&answer, |method, tensors| method.response.encode(tensors))
    }

    /// The messages of a stream for one request.
    pub(super) async fn answers(&self, request: &Bytes) -> Result<Vec<Vec<u8>>> {
        let method = self.method()?;
        match self.run(method.request.decode(request)).await? {
            Some(answer) => self.encode(&answer, |method, tensors| method.response.encode_each(tensors)),
            // An empty batch is answered by one, so that questions and answers stay in step.
            None if method.response.is_batch() => Ok(vec![Vec::new()]),
            None => Ok(Vec::new()),
        }
    }

    /// Writes an answer, and counts the time.
    pub(super) fn encode<T>(
        &self,
        answer: &Answer,
        write: impl FnOnce(&Method, &[&Tensor]) -> Result<T>,
    ) -> Result<T> {
        let start = Instant::now();
        let tensors: Vec<&Tensor> = answer.outputs.iter().map(|(_, tensor)| tensor).collect();
        let written = write(self.method()?, &tensors);
        let metrics = Arc::clone(&self.target.version().metrics);
        metrics.phase(Phase::Encode, start.elapsed());
        written
    }
}
