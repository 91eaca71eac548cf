//! Everything that is called over gRPC, by path: our own services, and typed ones for all that is left.

use std::convert::Infallible;

use axum::body::Body;
use bytes::Bytes;
use http::header::{ACCEPT, CONTENT_TYPE};
use http::{Request, Response};
use http_body::Body as HttpBody;
use tonic_health::pb::health_server::HealthServer;
use tonic_reflection::pb::{v1, v1alpha};
use tower::ServiceExt;

use super::health::HealthService;
use super::infer::Inference;
use super::oip::{GrpcService, OipGrpc, Ready, RepositoryControl, own_status};
use super::reflection::Reflection;
use super::typed;

/// The gRPC services of a port.
#[derive(Clone)]
pub struct Grpc {
    inference: Inference,
    oip: GrpcService,
    health: HealthServer<HealthService>,
    reflection: v1::server_reflection_server::ServerReflectionServer<Reflection>,
    reflection_alpha: v1alpha::server_reflection_server::ServerReflectionServer<Reflection>,
}

impl Grpc {
    /// The services, for one port.
    pub fn new(inference: Inference, control: RepositoryControl, ready: Ready) -> Self {
        let reflection = Reflection::new(inference.clone());
        Self {
            oip: OipGrpc::service(inference.clone(), control, ready.clone()),
            health: HealthServer::new(HealthService::new(inference.clone(), ready)),
            reflection: v1::server_reflection_server::ServerReflectionServer::new(reflection.clone()),
            reflection_alpha: v1alpha::server_reflection_server::ServerReflectionServer::new(reflection),
            inference,
        }
    }

    /// Answers a gRPC call.
    pub async fn answer<B>(&self, request: Request<B>) -> Response<Body>
    where
        B: HttpBody<Data = Bytes> + Send + 'static,
        B::Error: Into<Box<dyn std::error::Error + Send + Sync>> + Send + 'static,
    {
        let path = request.uri().path();
        let service =
            path.strip_prefix('/').and_then(|path| path.split_once('/')).map_or("", |(service, _)| service);
        let response = match service {
            "inference.GRPCInferenceService" => {
                let Ok(response) = self.oip.clone().oneshot(request).await;
                response
            }
            "grpc.health.v1.Health" => infallible(self.health.clone().oneshot(request).await),
            "grpc.reflection.v1.ServerReflection" => {
                infallible(self.reflection.clone().oneshot(request).await)
            }
            "grpc.reflection.v1alpha.ServerReflection" => {
                infallible(self.reflection_alpha.clone().oneshot(request).await)
            }
            _ => typed::serve(&self.inference, request).await,
        };
        own_status(response.map(Body::new))
    }

    /// Answers a gRPC-Web call, whose frames are turned into gRPC's and back.
    pub async fn answer_web<B>(&self, mut request: Request<B>) -> Response<Body>
    where
        B: HttpBody<Data = Bytes> + Send + 'static,
        B::Error: Into<Box<dyn std::error::Error + Send + Sync>> + std::fmt::Display + Send + 'static,
    {
        // The answer has the form of the request where nothing else is asked for; the library looks at Accept alone.
        let headers = request.headers_mut();
        let asks = headers.get(ACCEPT).is_some_and(|accept| accept != "*/*");
        if let (false, Some(media_type)) = (asks, headers.get(CONTENT_TYPE).cloned()) {
            headers.insert(ACCEPT, media_type);
        }
        let grpc = self.clone();
        let inner = tower::service_fn(move |request: Request<tonic::body::Body>| {
            let grpc = grpc.clone();
            async move { Ok::<_, Infallible>(grpc.answer(request).await) }
        });
        let web = tower::Layer::layer(&tonic_web::GrpcWebLayer::new(), inner);
        infallible(web.oneshot(request).await).map(Body::new)
    }
}

fn infallible<T>(result: Result<T, Infallible>) -> T {
    let Ok(value) = result;
    value
}
