//! What the protocol tells about models: metadata, configuration, statistics, repository index. Built once, as the
//! protocol's messages; REST writes the same as JSON.

use baton_proto::inference as oip;
use oip::model_metadata_response::TensorMetadata;
use oip::repository_index_response::ModelIndex;

use crate::engine::TensorSpec;
use crate::inference::infer::{Inference, Target};
use crate::model::{Entry, Slot, Version};
use crate::telemetry::Phase;
use crate::tensor::Dtype;

pub(super) fn metadata(target: &Target) -> oip::ModelMetadataResponse {
    let version = target.version();
    let tensors = |specs: &[TensorSpec]| {
        let tensor = |spec: &TensorSpec| TensorMetadata {
            name: spec.name.clone(),
            datatype: spec.dtype.name().to_owned(),
            shape: spec.wire_shape(),
        };
        specs.iter().map(tensor).collect()
    };
    let signature = version.signature();
    let mut properties = std::collections::BTreeMap::new();
    properties.insert("baton-digest".to_owned(), version.identity.digest_text.to_string());
    properties.insert("baton-generation".to_owned(), target.served().generation_text.to_string());
    if let Some(description) = &version.settings.description {
        properties.insert("description".to_owned(), description.clone());
    }
    for spec in &signature.outputs {
        if let Some(labels) = &spec.labels {
            let labels = serde_json::Value::from(labels.clone()).to_string();
            properties.insert(format!("labels.{}", spec.name), labels);
        }
    }
    oip::ModelMetadataResponse {
        name: version.identity.model.to_string(),
        versions: vec![version.identity.number_text.to_string()],
        platform: version.platform().to_owned(),
        inputs: tensors(&signature.inputs),
        outputs: tensors(&signature.outputs),
        properties,
    }
}

pub(super) fn config(version: &Version) -> oip::ModelConfig {
    let signature = version.signature();
    oip::ModelConfig {
        name: version.identity.model.to_string(),
        platform: version.platform().to_owned(),
        // The platform's first word, as Triton has it: `onnxruntime_onnx` runs in `onnxruntime`.
        backend: match version.platform().split_once('_') {
            Some(("onnxruntime", _)) => "onnxruntime".to_owned(),
            _ => version.platform().to_owned(),
        },
        version_policy: Some(oip::ModelVersionPolicy {
            policy_choice: Some(oip::model_version_policy::PolicyChoice::Specific(
                oip::model_version_policy::Specific {
                    versions: version.identity.number_text.parse().into_iter().collect(),
                },
            )),
        }),
        // The batch dimension, where there is one, is an ordinary varying dimension of `dims`.
        max_batch_size: 0,
        input: signature
            .inputs
            .iter()
            .map(|spec| oip::ModelInput {
                name: spec.name.clone(),
                data_type: data_type(spec.dtype).into(),
                dims: spec.wire_shape(),
            })
            .collect(),
        output: signature
            .outputs
            .iter()
            .map(|spec| oip::ModelOutput {
                name: spec.name.clone(),
                data_type: data_type(spec.dtype).into(),
                dims: spec.wire_shape(),
            })
            .collect(),
        model_transaction_policy: Some(oip::ModelTransactionPolicy { decoupled: false }),
    }
}

fn data_type(dtype: Dtype) -> oip::DataType {
    match dtype {
        Dtype::Bool => oip::DataType::TypeBool,
        Dtype::Uint8 => oip::DataType::TypeUint8,
        Dtype::Uint16 => oip::DataType::TypeUint16,
        Dtype::Uint32 => oip::DataType::TypeUint32,
        Dtype::Uint64 => oip::DataType::TypeUint64,
        Dtype::Int8 => oip::DataType::TypeInt8,
        Dtype::Int16 => oip::DataType::TypeInt16,
        Dtype::Int32 => oip::DataType::TypeInt32,
        Dtype::Int64 => oip::DataType::TypeInt64,
        Dtype::Fp16 => oip::DataType::TypeFp16,
        Dtype::Bf16 => oip::DataType::TypeBf16,
        Dtype::Fp32 => oip::DataType::TypeFp32,
        Dtype::Fp64 => oip::DataType::TypeFp64,
        Dtype::Bytes => oip::DataType::TypeString,
    }
}

pub(super) fn statistics(version: &Version) -> oip::ModelStatistics {
    let metrics = &version.metrics;
    let duration = |(count, ns): (u64, u64)| Some(oip::StatisticDuration { count, ns });
    let (queued, computed, encoded) =
        (metrics.totals(Phase::Queue), metrics.totals(Phase::Compute), metrics.totals(Phase::Encode));
    let answered = metrics.requests.get();
    oip::ModelStatistics {
        name: version.identity.model.to_string(),
        version: version.identity.number_text.to_string(),
        last_inference: metrics.last_answer_ms(),
        inference_count: answered,
        execution_count: computed.0,
        inference_stats: Some(oip::InferStatistics {
            success: duration((answered, queued.1 + computed.1 + encoded.1)),
            fail: duration((metrics.failures(), 0)),
            queue: duration((answered, queued.1)),
            compute_input: duration((answered, 0)),
            compute_infer: duration(computed),
            compute_output: duration(encoded),
            cache_hit: duration((0, 0)),
            cache_miss: duration((0, 0)),
        }),
    }
}

/// Every model of the store; only those being served with `ready`.
pub(super) fn index(inference: &Inference, ready: bool) -> Vec<ModelIndex> {
    let snapshot = inference.models().board().load();
    let describe = |(model, entry): (crate::store::ModelName, Entry)| {
        let active = snapshot.get(model.as_str()).and_then(|served| match &served.slot {
            Slot::Active(version) => Some(version.identity.number_text.to_string()),
            Slot::Empty { .. } => None,
        });
        let name = model.to_string();
        match active {
            Some(version) => {
                Some(ModelIndex { name, version, state: "READY".to_owned(), reason: String::new() })
            }
            None if ready => None,
            None => {
                let version =
                    entry.records.last().map(|record| record.number.to_string()).unwrap_or_default();
                let (state, reason) = match entry.preparing {
                    true => ("LOADING", String::new()),
                    false => ("UNAVAILABLE", entry.trouble.unwrap_or_else(|| "not activated".to_owned())),
                };
                Some(ModelIndex { name, version, state: state.to_owned(), reason })
            }
        }
    };
    inference.models().entries().into_iter().filter_map(describe).collect()
}
