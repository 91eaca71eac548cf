//! A small model with a contract, for the tests of this room.

use std::collections::BTreeMap;

use crate::bundle::{RequestLogSettings, Settings};
use crate::config::Limits;
use crate::contract::{Contract, Origin, Schema};
use crate::engine::{Signature, TensorSpec};
use crate::tensor::{Dim, Dtype};

const SOURCE: &str = r#"
syntax = "proto3";
package iris.v1;
import "baton/options.proto";
service Iris {
  rpc Classify(Features) returns (Prediction);
  rpc Second(Other) returns (Prediction);
}
message Features {
  float sepal_length = 1; float sepal_width = 2; float petal_length = 3; float petal_width = 4;
  string customer = 5 [(baton.ignore) = true];
}
message Other { float length = 1; float b = 2; float c = 3; float d = 4; }
message Prediction { int64 label = 1; repeated float probabilities = 2; }
"#;

pub(super) fn iris_signature() -> Signature {
    let spec = |name: &str, dtype, columns: Option<i64>| TensorSpec {
        name: name.to_owned(),
        dtype,
        shape: Some([Dim::Any(None)].into_iter().chain(columns.map(Dim::Fixed)).collect()),
        labels: None,
    };
    Signature {
        inputs: vec![spec("X", Dtype::Fp32, Some(4))],
        outputs: vec![spec("label", Dtype::Int64, None), spec("probabilities", Dtype::Fp32, Some(3))],
    }
}

pub(super) fn iris_contract() -> Contract {
    let limits = Limits::default();
    let schema = Schema::compile("iris.proto", SOURCE.as_bytes(), &limits).expect("a contract");
    Contract::bind(schema, Origin::Pushed, &iris_signature(), &BTreeMap::new(), &limits).expect("bound")
}

pub(super) fn settings(toml: &str) -> RequestLogSettings {
    let settings = Settings::parse(format!("[request_log]\n{toml}").as_bytes()).expect("settings");
    settings.request_log.expect("a section")
}
