//! A run of what was uploaded for this one call. Nothing is stored, nothing that is served changes.

use std::sync::Arc;
use std::time::Instant;

use super::prepare::{Candidate, load};
use super::{Models, Version};
use crate::bundle::Settings;
use crate::contract::{self, Contract, MessageForm, Method, Origin, Schema};
use crate::engine::{Instance, RunControl, Signature};
use crate::error::{Code, Error, Result};
use crate::store::ModelName;
use crate::tensor::Tensor;

/// What is to be tried.
#[derive(Debug)]
pub struct Trial {
    pub model: TrialModel,
    /// Else the served one's, or one that is made.
    pub contract: Option<Vec<u8>>,
    /// Settings, `baton.toml`.
    pub manifest: Vec<u8>,
    /// Needed if the contract has several.
    pub method: Option<String>,
    pub input: Vec<u8>,
    pub form: MessageForm,
    pub answer: MessageForm,
}

/// Which model.
#[derive(Debug)]
pub enum TrialModel {
    Uploaded(Vec<u8>),
    Served(ModelName),
}

/// A model that a trial runs.
enum Subject {
    Loaded(Box<dyn Instance>),
    Served(Arc<Version>),
}

impl Subject {
    fn signature(&self) -> &Signature {
        match self {
            Self::Loaded(instance) => instance.signature(),
            Self::Served(version) => version.signature(),
        }
    }

    fn run(&self, inputs: &[Tensor], outputs: &[usize], control: &RunControl) -> Result<Vec<Tensor>> {
        match self {
            Self::Loaded(instance) => instance.run(inputs, outputs, control),
            Self::Served(version) => version.run(inputs, outputs, control),
        }
    }
}

impl Models {
    /// Loads what was uploaded, runs the input once and gives the answer's bytes.
    ///
    /// # Errors
    /// Every refusal of a push, and of a call.
    pub async fn try_once(self: &Arc<Self>, trial: Trial) -> Result<Vec<u8>> {
        self.on_loader(move |models| models.run_trial(trial)).await
    }

    fn run_trial(&self, trial: Trial) -> Result<Vec<u8>> {
        let mut settings = Settings::parse(&trial.manifest)?;
        // There is one run.
        settings.workers.count = 1;
        let (subject, contract) = match trial.model {
            TrialModel::Uploaded(artifact) => {
                let name: ModelName = "trial".parse()?;
                let contract = trial.contract;
                let candidate = Candidate {
                    model: &name,
                    artifact,
                    contract,
                    settings: &settings,
                    golden: &[],
                    metrics: None,
                    degraded: None,
                };
                let loaded = load(&self.engines, candidate, &self.limits)?;
                (Subject::Loaded(loaded.instance), loaded.contract)
            }
            TrialModel::Served(name) => {
                let version = Arc::clone(self.served(name.as_str())?.active()?);
                let contract = match trial.contract {
                    None => None,
                    Some(source) => {
                        let schema =
                            Schema::compile(&contract::file_name(name.as_str()), &source, &self.limits)?;
                        let signature = version.signature();
                        let bind = &settings.bind;
                        Some(Contract::bind(schema, Origin::Pushed, signature, bind, &self.limits)?)
                    }
                };
                (Subject::Served(version), contract)
            }
        };
        let served = match &subject {
            Subject::Served(version) => version.contract.as_ref(),
            Subject::Loaded(_) => None,
        };
        let contract = contract.as_ref().or(served).ok_or_else(|| {
            Error::new(Code::ContractModelMismatch, "no contract can be made for the model; upload one")
        })?;
        let method = contract.method(trial.method.as_deref())?;
        self.run_method(&subject, method, trial.form, trial.input, trial.answer)
    }

    fn run_method(
        &self,
        subject: &Subject,
        method: &Method,
        form: MessageForm,
        input: Vec<u8>,
        answer: MessageForm,
    ) -> Result<Vec<u8>> {
        let decoded = method.request(form, input)?;
        if decoded.rows > 1 && !method.response.is_batch() && answer != MessageForm::Csv {
            return Err(Error::new(
                Code::BadRequest,
                format!("{} rows came, and the method's answer holds one; ask for CSV", decoded.rows),
            ));
        }
        let inputs = subject.signature().arrange(decoded.inputs)?;
        let outputs: Vec<usize> = method.response.outputs().collect();
        let control = RunControl {
            deadline: Instant::now() + self.limits.request_time,
            cancelled: None,
            output_bytes: self.limits.tensor_bytes,
        };
        let tensors = subject.run(&inputs, &outputs, &control)?;
        method.response(answer, &tensors.iter().collect::<Vec<_>>())
    }

    /// The protobuf bytes of a request, by an uploaded contract or by that of a served model.
    ///
    /// # Errors
    /// Those of compiling a contract; `BAD_JSON`, `BAD_CSV`, `BAD_REQUEST`.
    pub async fn convert(
        self: &Arc<Self>,
        contract: ConvertBy,
        method: Option<String>,
        form: MessageForm,
        input: Vec<u8>,
    ) -> Result<Vec<u8>> {
        self.on_loader(move |models| match contract {
            ConvertBy::Uploaded(source) => {
                let schema = Schema::compile("upload.proto", &source, &models.limits)?;
                contract::convert(&schema.method(method.as_deref())?, form, input, &models.limits)
            }
            ConvertBy::Served(name) => {
                let served = models.served(name.as_str())?;
                let contract =
                    served.active()?.contract.as_ref().ok_or_else(|| {
                        Error::new(Code::PartMissing, format!("model {name} has no contract"))
                    })?;
                contract::convert(&contract.schema.method(method.as_deref())?, form, input, &models.limits)
            }
        })
        .await
    }
}

/// Whose contract converts.
#[derive(Debug)]
pub enum ConvertBy {
    Uploaded(Vec<u8>),
    Served(ModelName),
}
