//! `grpc.health.v1`: the server (`""`), every service, and every model by its name. `Watch` follows the snapshot.
//! Source: <https://github.com/grpc/grpc/blob/master/doc/health-checking.md>.

use std::sync::Arc;

use futures_util::StreamExt;
use futures_util::stream::{self, BoxStream};
use tonic::{Request, Response, Status};
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_server::Health;
use tonic_health::pb::{HealthCheckRequest, HealthCheckResponse};

use super::infer::Inference;
use super::oip::Ready;
use crate::contract::Contract;
use crate::error::{Code, Error};
use crate::model::Version;

/// Tells who is serving.
#[derive(Clone)]
pub(super) struct HealthService {
    inference: Inference,
    ready: Ready,
}

impl HealthService {
    pub(super) fn new(inference: Inference, ready: Ready) -> Self {
        Self { inference, ready }
    }

    fn status(&self, service: &str) -> ServingStatus {
        let ready = match (self.ready)(&self.inference) && !self.inference.models().is_closing() {
            true => ServingStatus::Serving,
            false => ServingStatus::NotServing,
        };
        if service.is_empty() || service == "inference.GRPCInferenceService" {
            return ready;
        }
        let snapshot = self.inference.models().board().load();
        if let Some(served) = snapshot.get(service) {
            let serves = served.active().is_ok_and(|version| !version.is_degraded());
            return if serves { ready } else { ServingStatus::NotServing };
        }
        let versions = snapshot.iter().filter_map(|served| served.active().ok());
        let has_service = |version: &&Arc<Version>| {
            version.contract.iter().flat_map(Contract::services).any(|known| known == service)
        };
        match versions.into_iter().find(has_service) {
            Some(version) if version.is_degraded() => ServingStatus::NotServing,
            Some(_) => ready,
            None => ServingStatus::ServiceUnknown,
        }
    }
}

fn response(status: ServingStatus) -> HealthCheckResponse {
    HealthCheckResponse { status: status.into() }
}

#[tonic::async_trait]
impl Health for HealthService {
    async fn check(
        &self,
        request: Request<HealthCheckRequest>,
    ) -> Result<Response<HealthCheckResponse>, Status> {
        match self.status(&request.get_ref().service) {
            ServingStatus::ServiceUnknown => {
                let shown: String = request.get_ref().service.chars().take(200).collect();
                let text = format!("there is no service or model {shown:?}");
                Err(Error::new(Code::ModelUnknown, text).into())
            }
            status => Ok(Response::new(response(status))),
        }
    }

    type WatchStream = BoxStream<'static, Result<HealthCheckResponse, Status>>;

    async fn watch(
        &self,
        request: Request<HealthCheckRequest>,
    ) -> Result<Response<Self::WatchStream>, Status> {
        let service = request.into_inner().service;
        let changes = self.inference.models().board().follow();
        let told: Option<ServingStatus> = None;
        let states = stream::unfold((self.clone(), service, changes, told), |state| async move {
            let (health, service, mut changes, told) = state;
            loop {
                // Marked as seen before looking, so that no change falls between.
                changes.borrow_and_update();
                let status = health.status(&service);
                if told != Some(status) {
                    return Some((Ok(response(status)), (health, service, changes, Some(status))));
                }
                // The last word has been said: a stream must not hold up the end.
                if health.inference.models().is_closing() || changes.changed().await.is_err() {
                    return None;
                }
            }
        });
        Ok(Response::new(states.boxed()))
    }
}
