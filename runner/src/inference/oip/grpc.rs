//! The protocol's gRPC service.

use std::pin::Pin;
use std::time::{Duration, Instant};

use axum::body::Body;
use baton_proto::inference as oip;
use bytes::Bytes;
use futures_util::Stream;
use oip::grpc_inference_service_server::{GrpcInferenceService, GrpcInferenceServiceServer};
use oip::infer_parameter::ParameterChoice;
use tonic::codec::CompressionEncoding;
use tonic::metadata::MetadataMap;
use tonic::{Request, Response, Status, Streaming};

use super::json::{tensor_error, unsupported};
use super::{Ready, RepositoryControl, SERVER_NAME, describe, rest};
use crate::engine::Signature;
use crate::error::{Code, Error, Result};
use crate::inference::headers::{CallOptions, sign_headers, signed_by};
use crate::inference::infer::{Address, Answer, Inference, Inputs, Wanted};
use crate::requestlog::RequestId;
use crate::telemetry::Phase;
use crate::tensor::{Dtype, Tensor, raw};

/// The service as it is mounted on a port.
pub type GrpcService = GrpcInferenceServiceServer<OipGrpc>;

/// The service, for one port.
#[derive(Clone)]
pub struct OipGrpc {
    inference: Inference,
    control: RepositoryControl,
    ready: Ready,
}

impl OipGrpc {
    /// The service with its message limits.
    pub fn service(inference: Inference, control: RepositoryControl, ready: Ready) -> GrpcService {
        let limit = inference.limits().request_body;
        GrpcInferenceServiceServer::new(Self { inference, control, ready })
            .accept_compressed(CompressionEncoding::Gzip)
            .accept_compressed(CompressionEncoding::Deflate)
            // Answers are not compressed: gRPC clients offer it always, also over loopback.
            .max_decoding_message_size(limit)
            .max_encoding_message_size(usize::MAX)
    }

    fn target(&self, name: &str, version: &str) -> Result<crate::inference::Target> {
        self.inference.target(Address { model: name, version, digest: None })
    }

    fn repository(&self, name: &str) -> Result<()> {
        if !name.is_empty() {
            return Err(Error::new(Code::Unsupported, "there is one repository, without a name"));
        }
        if self.control == RepositoryControl::ReadOnly {
            return Err(Error::new(Code::RouteUnknown, "models are loaded and unloaded on the admin port"));
        }
        Ok(())
    }

    async fn infer(
        &self,
        mut message: oip::ModelInferRequest,
        options: CallOptions,
    ) -> Result<(Answer, oip::ModelInferResponse)> {
        let model = std::mem::take(&mut message.model_name);
        let version = std::mem::take(&mut message.model_version);
        let id = std::mem::take(&mut message.id);
        let address = Address { model: &model, version: &version, digest: options.require_digest.as_deref() };
        let limit = self.inference.limits().tensors;
        let target = self.inference.target(address)?;
        let named = Some(id.as_str()).filter(|_| target.is_logged());
        let named = named.and_then(|id| RequestId::given(id, self.inference.limits()));
        let decode = |_: &Signature| {
            let inputs = decode(message, options.timeout, limit)?;
            Ok(Inputs { request_id: named.or(options.request_id), ..inputs })
        };
        let answer = self.inference.infer(target, decode).await?;
        let start = Instant::now();
        let response = encode(&answer, id);
        answer.target.version().metrics.phase(Phase::Encode, start.elapsed());
        Ok((answer, response))
    }
}

/// tonic refuses a message over the limit with OUT_OF_RANGE and words of its own; callers expect ours. No answer of
/// Baton's has that status.
pub fn own_status(response: http::Response<Body>) -> http::Response<Body> {
    let refused = response.headers().get(Status::GRPC_STATUS);
    if refused.is_some_and(|status| status.as_bytes() == b"11") {
        return Status::from(Error::new(Code::BodyTooLarge, "the message is larger than the limit"))
            .into_http();
    }
    response
}

fn decode(message: oip::ModelInferRequest, timeout: Option<Duration>, max_tensors: usize) -> Result<Inputs> {
    if message.inputs.len().max(message.outputs.len()) > max_tensors {
        return Err(Error::new(Code::BadRequest, format!("a request names at most {max_tensors} tensors")));
    }
    let raw = !message.raw_input_contents.is_empty();
    if raw && message.raw_input_contents.len() != message.inputs.len() {
        return Err(Error::new(
            Code::BadCount,
            format!(
                "{} inputs with {} raw_input_contents",
                message.inputs.len(),
                message.raw_input_contents.len()
            ),
        ));
    }
    let mut blobs = message.raw_input_contents.into_iter();
    let mut tensors = Vec::with_capacity(message.inputs.len());
    for input in message.inputs {
        let name = input.name;
        if input.parameters.contains_key("shared_memory_region") {
            return Err(unsupported("shared_memory_region"));
        }
        let dtype = Dtype::from_name(&input.datatype).ok_or_else(|| {
            let shown: String = input.datatype.chars().take(64).collect();
            Error::new(Code::BadDtype, format!("input {name:?}: {shown:?} is no datatype"))
        })?;
        let tensor = match (blobs.next(), input.contents) {
            (Some(_), Some(_)) => {
                return Err(Error::new(
                    Code::BadRequest,
                    format!(
                        "input {name:?} has contents beside raw_input_contents; use one form in a message"
                    ),
                ));
            }
            (Some(blob), None) => Tensor::raw(dtype, input.shape, blob),
            (None, contents) => typed(&name, dtype, input.shape, contents.unwrap_or_default())?,
        };
        let tensor = tensor.map_err(|error| tensor_error(&name, &error))?;
        tensors.push((name, tensor));
    }
    for output in &message.outputs {
        if output.parameters.contains_key("classification") {
            return Err(unsupported("classification"));
        }
        if output.parameters.contains_key("shared_memory_region") {
            return Err(unsupported("shared_memory_region"));
        }
    }
    // Triton's request parameter, in microseconds; the call's own deadline counts too.
    let parameter =
        match message.parameters.get("timeout").and_then(|parameter| parameter.parameter_choice.as_ref()) {
            Some(ParameterChoice::Int64Param(micros)) => u64::try_from(*micros).ok(),
            Some(ParameterChoice::Uint64Param(micros)) => Some(*micros),
            _ => None,
        };
    let parameter = parameter.filter(|micros| *micros > 0).map(Duration::from_micros);
    let timeout = [timeout, parameter].into_iter().flatten().min();
    let outputs = Wanted::Named(message.outputs.into_iter().map(|output| output.name).collect());
    Ok(Inputs { tensors, outputs, timeout, request_id: None })
}

/// Elements in the typed fields. Exactly the field of the datatype may be filled.
fn typed(
    name: &str,
    dtype: Dtype,
    shape: Vec<i64>,
    contents: oip::InferTensorContents,
) -> Result<std::result::Result<Tensor, crate::tensor::TensorError>> {
    let out_of_range =
        || Error::new(Code::BadDtype, format!("input {name:?}: an element does not fit {dtype}"));
    macro_rules! narrow {
        ($values:expr, $type:ty) => {{
            let mut bytes = Vec::with_capacity($values.len() * size_of::<$type>());
            for value in $values {
                bytes.extend_from_slice(&<$type>::try_from(value).map_err(|_| out_of_range())?.to_le_bytes());
            }
            bytes
        }};
    }
    let bytes: Vec<u8> = match dtype {
        Dtype::Bool => contents.bool_contents.into_iter().map(u8::from).collect(),
        Dtype::Int8 => narrow!(contents.int_contents, i8),
        Dtype::Int16 => narrow!(contents.int_contents, i16),
        Dtype::Int32 => narrow!(contents.int_contents, i32),
        Dtype::Int64 => narrow!(contents.int64_contents, i64),
        Dtype::Uint8 => narrow!(contents.uint_contents, u8),
        Dtype::Uint16 => narrow!(contents.uint_contents, u16),
        Dtype::Uint32 => narrow!(contents.uint_contents, u32),
        Dtype::Uint64 => narrow!(contents.uint64_contents, u64),
        Dtype::Fp32 => contents.fp32_contents.into_iter().flat_map(f32::to_le_bytes).collect(),
        Dtype::Fp64 => contents.fp64_contents.into_iter().flat_map(f64::to_le_bytes).collect(),
        Dtype::Bytes => return Ok(Tensor::text(shape, contents.bytes_contents)),
        Dtype::Fp16 | Dtype::Bf16 => {
            return Err(Error::new(
                Code::BadDtype,
                format!("input {name:?}: {dtype} has no typed contents; send raw_input_contents"),
            ));
        }
    };
    let width = dtype.width().unwrap_or(1);
    let wanted = match crate::tensor::element_count(&shape) {
        Ok(count) => count,
        Err(error) => return Ok(Err(error)),
    };
    if bytes.len() != wanted * width {
        let shape = crate::tensor::format_shape(&shape);
        let got = bytes.len() / width;
        return Ok(Err(crate::tensor::TensorError::Count { shape, wanted, got, unit: "elements" }));
    }
    Ok(Tensor::raw(dtype, shape, Bytes::from(bytes)))
}

fn encode(answer: &Answer, id: String) -> oip::ModelInferResponse {
    let text = |text: &str| oip::InferParameter {
        parameter_choice: Some(ParameterChoice::StringParam(text.to_owned())),
    };
    let mut outputs = Vec::with_capacity(answer.outputs.len());
    let mut blobs = Vec::with_capacity(answer.outputs.len());
    for (name, tensor) in answer.named() {
        outputs.push(oip::model_infer_response::InferOutputTensor {
            name: name.to_owned(),
            datatype: tensor.dtype().name().to_owned(),
            shape: tensor.shape().to_vec(),
            parameters: Default::default(),
            contents: None,
        });
        blobs.push(raw::encode(tensor));
    }
    let identity = &answer.target.version().identity;
    oip::ModelInferResponse {
        model_name: identity.model.to_string(),
        model_version: identity.number_text.to_string(),
        id,
        parameters: signed_by(&answer.target, answer.request_id.as_ref())
            .map(|(name, value)| (name.to_owned(), text(value)))
            .collect(),
        outputs,
        raw_output_contents: blobs,
    }
}

#[tonic::async_trait]
impl GrpcInferenceService for OipGrpc {
    async fn server_live(
        &self,
        _: Request<oip::ServerLiveRequest>,
    ) -> std::result::Result<Response<oip::ServerLiveResponse>, Status> {
        Ok(Response::new(oip::ServerLiveResponse { live: true }))
    }

    async fn server_ready(
        &self,
        _: Request<oip::ServerReadyRequest>,
    ) -> std::result::Result<Response<oip::ServerReadyResponse>, Status> {
        Ok(Response::new(oip::ServerReadyResponse { ready: (self.ready)(&self.inference) }))
    }

    async fn model_ready(
        &self,
        request: Request<oip::ModelReadyRequest>,
    ) -> std::result::Result<Response<oip::ModelReadyResponse>, Status> {
        let request = request.into_inner();
        let ready = match self.target(&request.name, &request.version) {
            Ok(target) => !target.version().is_degraded(),
            // A client asks this to wait until it is ready; only a wrong question is an error.
            Err(error)
                if matches!(
                    error.code(),
                    Code::ModelUnknown | Code::ModelNotReady | Code::VersionUnknown | Code::VersionNotActive
                ) =>
            {
                false
            }
            Err(error) => return Err(error.into()),
        };
        Ok(Response::new(oip::ModelReadyResponse { ready }))
    }

    async fn server_metadata(
        &self,
        _: Request<oip::ServerMetadataRequest>,
    ) -> std::result::Result<Response<oip::ServerMetadataResponse>, Status> {
        Ok(Response::new(oip::ServerMetadataResponse {
            name: SERVER_NAME.to_owned(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            extensions: rest::extensions(self.control).into_iter().map(str::to_owned).collect(),
        }))
    }

    async fn model_metadata(
        &self,
        request: Request<oip::ModelMetadataRequest>,
    ) -> std::result::Result<Response<oip::ModelMetadataResponse>, Status> {
        let request = request.into_inner();
        Ok(Response::new(describe::metadata(&self.target(&request.name, &request.version)?)))
    }

    async fn model_infer(
        &self,
        request: Request<oip::ModelInferRequest>,
    ) -> std::result::Result<Response<oip::ModelInferResponse>, Status> {
        let options = CallOptions::read(request.metadata().as_ref(), self.inference.limits());
        let (answer, message) = self.infer(request.into_inner(), options).await?;
        let mut headers = http::HeaderMap::with_capacity(8);
        sign_headers(&answer.target, answer.request_id.as_ref(), &mut headers);
        Ok(Response::from_parts(MetadataMap::from_headers(headers), message, tonic::Extensions::default()))
    }

    type ModelStreamInferStream =
        Pin<Box<dyn Stream<Item = std::result::Result<oip::ModelStreamInferResponse, Status>> + Send>>;

    /// Each message is a request of its own, with its own snapshot: clients keep such a stream open for days, and it
    /// must neither miss a swap nor keep a retired version alive (docs/adr/0001).
    async fn model_stream_infer(
        &self,
        request: Request<Streaming<oip::ModelInferRequest>>,
    ) -> std::result::Result<Response<Self::ModelStreamInferStream>, Status> {
        // The deadline of the call is the stream's, not each message's.
        let options = CallOptions::read(request.metadata().as_ref(), self.inference.limits());
        let options = CallOptions { timeout: None, ..options };
        let state = (self.clone(), request.into_inner(), options, 0);
        let answers =
            futures_util::stream::try_unfold(state, |(service, mut messages, options, number)| async move {
                let Some(message) = messages.message().await? else { return Ok(None) };
                let id = message.id.clone();
                let request_id = options.request_id.as_ref().map(|id| id.message(number));
                let own = CallOptions { request_id, ..options.clone() };
                let answer = match service.infer(message, own).await {
                    Ok((_, mut response)) => {
                        let last =
                            oip::InferParameter { parameter_choice: Some(ParameterChoice::BoolParam(true)) };
                        response.parameters.insert("triton_final_response".to_owned(), last);
                        oip::ModelStreamInferResponse {
                            error_message: String::new(),
                            infer_response: Some(response),
                        }
                    }
                    Err(error) => {
                        let status = Status::from(error);
                        oip::ModelStreamInferResponse {
                            error_message: status.message().to_owned(),
                            infer_response: Some(oip::ModelInferResponse { id, ..Default::default() }),
                        }
                    }
                };
                Ok(Some((answer, (service, messages, options, number + 1))))
            });
        Ok(Response::new(Box::pin(answers)))
    }

    async fn model_config(
        &self,
        request: Request<oip::ModelConfigRequest>,
    ) -> std::result::Result<Response<oip::ModelConfigResponse>, Status> {
        let request = request.into_inner();
        let config = describe::config(self.target(&request.name, &request.version)?.version());
        Ok(Response::new(oip::ModelConfigResponse { config: Some(config) }))
    }

    async fn model_statistics(
        &self,
        request: Request<oip::ModelStatisticsRequest>,
    ) -> std::result::Result<Response<oip::ModelStatisticsResponse>, Status> {
        let request = request.into_inner();
        let model_stats = if request.name.is_empty() {
            let snapshot = self.inference.models().board().load();
            snapshot
                .iter()
                .filter_map(|served| served.active().ok())
                .map(|version| describe::statistics(version))
                .collect()
        } else {
            vec![describe::statistics(self.target(&request.name, &request.version)?.version())]
        };
        Ok(Response::new(oip::ModelStatisticsResponse { model_stats }))
    }

    async fn repository_index(
        &self,
        request: Request<oip::RepositoryIndexRequest>,
    ) -> std::result::Result<Response<oip::RepositoryIndexResponse>, Status> {
        let models = describe::index(&self.inference, request.into_inner().ready);
        Ok(Response::new(oip::RepositoryIndexResponse { models }))
    }

    async fn repository_model_load(
        &self,
        request: Request<oip::RepositoryModelLoadRequest>,
    ) -> std::result::Result<Response<oip::RepositoryModelLoadResponse>, Status> {
        let request = request.into_inner();
        self.repository(&request.repository_name)?;
        if !request.parameters.is_empty() {
            return Err(rest::load_parameters_unsupported().into());
        }
        let models = self.inference.models();
        let claim = models.claim(&request.model_name.parse()?)?;
        models.activate(claim, None, None).await?;
        Ok(Response::new(oip::RepositoryModelLoadResponse {}))
    }

    async fn repository_model_unload(
        &self,
        request: Request<oip::RepositoryModelUnloadRequest>,
    ) -> std::result::Result<Response<oip::RepositoryModelUnloadResponse>, Status> {
        let request = request.into_inner();
        self.repository(&request.repository_name)?;
        let models = self.inference.models();
        let claim = models.claim(&request.model_name.parse()?)?;
        models.deactivate(claim).await?;
        Ok(Response::new(oip::RepositoryModelUnloadResponse {}))
    }
}
