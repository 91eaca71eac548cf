//! The closed list of error codes. A code has an identifier, whose fault it is, an HTTP status, a gRPC code and a page.
//!
//! The page is compiled in: a code without `docs/errors/<CODE>.md` does not build. Statuses are numbers here and
//! nowhere else in the tree (`tests/tidy.rs` watches that).

use serde::Serialize;

/// Whose fault a failure is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Origin {
    /// The caller can mend it by sending something else, or the same thing later.
    Request,
    /// The model that was asked to run.
    Model,
    /// Baton itself, or the machine under it.
    Runner,
    /// Something that Baton needs: ONNX Runtime, the disk.
    Dependency,
}

macro_rules! codes {
    ($($variant:ident $id:literal $origin:ident $http:literal $grpc:ident $summary:literal;)*) => {
        /// A stable error code. Codes are never renamed and never reused.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        pub enum Code { $(#[doc = $summary] $variant,)* }

        impl Code {
            /// Every code, in the order of the list.
            pub const ALL: &[Code] = &[$(Code::$variant),*];

            /// The identifier that callers see, e.g. `BAD_SHAPE`.
            pub fn id(self) -> &'static str {
                match self { $(Code::$variant => $id,)* }
            }

            /// Whose fault it is.
            pub fn origin(self) -> Origin {
                match self { $(Code::$variant => Origin::$origin,)* }
            }

            /// One line on what it means.
            pub fn summary(self) -> &'static str {
                match self { $(Code::$variant => $summary,)* }
            }

            /// The page under `docs/errors/`, in Markdown.
            pub fn page(self) -> &'static str {
                match self { $(Code::$variant => include_str!(concat!("../../../docs/errors/", $id, ".md")),)* }
            }

            pub(super) fn http_status(self) -> u16 {
                match self { $(Code::$variant => $http,)* }
            }

            pub(super) fn grpc_code(self) -> tonic::Code {
                match self { $(Code::$variant => tonic::Code::$grpc,)* }
            }
        }
    };
}

codes! {
    // What a caller of a model can get wrong.
    BadJson "BAD_JSON" Request 400 InvalidArgument "the body is not the JSON that was expected";
    BadRequest "BAD_REQUEST" Request 400 InvalidArgument "a parameter, header or field is not acceptable";
    BadShape "BAD_SHAPE" Request 400 InvalidArgument "a tensor's shape is not the one the model takes";
    BadDtype "BAD_DTYPE" Request 400 InvalidArgument "a tensor's datatype is unknown or not the one the model takes";
    BadCount "BAD_COUNT" Request 400 InvalidArgument "the number of elements does not fit the shape";
    BadBytes "BAD_BYTES" Request 400 InvalidArgument "a BYTES tensor's length prefixes do not fit its data";
    BadBinaryHeader "BAD_BINARY_HEADER" Request 400 InvalidArgument "the binary tensor sizes do not fit the body";
    InputNames "INPUT_NAMES" Request 400 InvalidArgument "inputs are missing, unknown or given twice";
    OutputNames "OUTPUT_NAMES" Request 400 InvalidArgument "a requested output is unknown or given twice";
    BadMessage "BAD_MESSAGE" Request 400 InvalidArgument "the body is not a message of the method's request type";
    BadField "BAD_FIELD" Request 400 InvalidArgument "a field's value does not fit what the model takes there";
    BadCsv "BAD_CSV" Request 400 InvalidArgument "the CSV file does not fit the method's rows";
    DecodeLimit "DECODE_LIMIT" Request 400 InvalidArgument "the message has too many rows, elements or levels";
    BodyTooLarge "BODY_TOO_LARGE" Request 413 ResourceExhausted "the request is larger than the limit";
    BodyTooSlow "BODY_TOO_SLOW" Request 408 DeadlineExceeded "the request's body arrived too slowly";
    EncodingRefused "ENCODING_REFUSED" Request 415 InvalidArgument "the content type or encoding is not accepted here";
    ModelUnknown "MODEL_UNKNOWN" Request 404 NotFound "no model of this name";
    VersionUnknown "VERSION_UNKNOWN" Request 404 NotFound "the model has no such version";
    VersionNotActive "VERSION_NOT_ACTIVE" Request 404 NotFound "the version exists but is not the one being served";
    DigestNotActive "DIGEST_NOT_ACTIVE" Request 412 FailedPrecondition "the served bundle is not the one the request requires";
    RouteUnknown "ROUTE_UNKNOWN" Request 404 Unimplemented "no such path or method on this port";
    MethodNotAllowed "METHOD_NOT_ALLOWED" Request 405 Unimplemented "the path exists but not with this HTTP method";
    Unsupported "UNSUPPORTED" Request 501 Unimplemented "the feature is not implemented by Baton";
    Deadline "DEADLINE" Request 504 DeadlineExceeded "the answer was not ready before the deadline";
    Cancelled "CANCELLED" Request 499 Cancelled "the caller left before the answer was ready";
    ModelNotReady "MODEL_NOT_READY" Runner 503 Unavailable "the model is known but nothing of it is being served now";
    Overloaded "OVERLOADED" Runner 503 Unavailable "the queue is full; try again shortly";
    ModelFailed "MODEL_FAILED" Model 500 Internal "the model failed while running on this input";
    InputRefused "INPUT_REFUSED" Request 400 InvalidArgument "the model says that it does not take this input";
    ModelPanic "MODEL_PANIC" Model 500 Internal "the native model panicked on this input";
    ModelContract "MODEL_CONTRACT" Model 500 Internal "the native model's answer breaks the binary interface";
    ModelOverrun "MODEL_OVERRUN" Model 500 Internal "the native model wrote beyond its output buffer";
    ModelMemory "MODEL_MEMORY" Model 503 Unavailable "the model's worker died at its memory limit";
    WorkerLost "WORKER_LOST" Model 503 Unavailable "the model's worker died while it had this request, or is not back yet";
    OutputTooLarge "OUTPUT_TOO_LARGE" Model 422 ResourceExhausted "the model's answer is larger than the limit";

    // Credentials and browsers.
    NoCredentials "NO_CREDENTIALS" Request 401 Unauthenticated "a bearer token is required";
    WrongRole "WRONG_ROLE" Request 403 PermissionDenied "the token is not allowed to do this";
    OriginRefused "ORIGIN_REFUSED" Request 403 PermissionDenied "a web page of another origin may not call this port";
    HostRefused "HOST_REFUSED" Request 403 PermissionDenied "the Host header names a host that this port does not serve";

    // Pushes.
    BadName "BAD_NAME" Request 400 InvalidArgument "the model name is not acceptable";
    BadDigest "BAD_DIGEST" Request 400 InvalidArgument "a digest is not of the form sha256:<64 hex digits>";
    BadMultipart "BAD_MULTIPART" Request 400 InvalidArgument "the multipart body cannot be read";
    BadManifest "BAD_MANIFEST" Request 400 InvalidArgument "the manifest cannot be read";
    BadGolden "BAD_GOLDEN" Request 400 InvalidArgument "the golden rows cannot be read";
    BadProvenance "BAD_PROVENANCE" Request 400 InvalidArgument "the provenance record cannot be read";
    BadContract "BAD_CONTRACT" Request 422 InvalidArgument "the contract cannot be read";
    ContractSyntax "CONTRACT_SYNTAX" Request 422 InvalidArgument "the contract is no valid proto3 text";
    ContractImport "CONTRACT_IMPORT" Request 422 InvalidArgument "the contract imports a file that it may not or that does not exist";
    ContractTooLarge "CONTRACT_TOO_LARGE" Request 413 ResourceExhausted "the contract is larger than the limits";
    ContractTooDeep "CONTRACT_TOO_DEEP" Request 422 InvalidArgument "the contract's messages are nested too deeply";
    ContractInvalid "CONTRACT_INVALID" Request 422 InvalidArgument "the contract breaks a rule of protobuf";
    ContractUnsupported "CONTRACT_UNSUPPORTED" Request 422 InvalidArgument "the contract is not written in proto3";
    ContractModelMismatch "CONTRACT_MODEL_MISMATCH" Request 422 InvalidArgument "contract and model do not fit each other";
    BindingAmbiguous "BINDING_AMBIGUOUS" Request 422 InvalidArgument "the contract can be read in more than one way";
    ContractBreaking "CONTRACT_BREAKING" Request 409 FailedPrecondition "the new contract breaks clients of the one being served";
    ServiceNameTaken "SERVICE_NAME_TAKEN" Request 409 AlreadyExists "another model, or Baton itself, serves a service of this name";
    UploadEmpty "UPLOAD_EMPTY" Request 400 InvalidArgument "the push holds nothing to store";
    UploadTruncated "UPLOAD_TRUNCATED" Request 400 InvalidArgument "the body ended before it was complete";
    UploadTooLarge "UPLOAD_TOO_LARGE" Request 413 ResourceExhausted "the uploaded part is larger than its limit";
    UploadTooSlow "UPLOAD_TOO_SLOW" Request 408 DeadlineExceeded "the upload arrived too slowly";
    UploadInProgress "UPLOAD_IN_PROGRESS" Request 409 Aborted "another change of this model is under way";
    UploadBusy "UPLOAD_BUSY" Runner 503 Unavailable "too many uploads at once; try again shortly";
    DigestMismatch "DIGEST_MISMATCH" Request 422 InvalidArgument "the uploaded bytes do not have the digest that was announced";
    WrongFormat "WRONG_FORMAT" Request 422 InvalidArgument "the uploaded file is not a model";
    ExternalData "EXTERNAL_DATA" Request 422 InvalidArgument "the model keeps tensors outside its file";
    ModelTooDeep "MODEL_TOO_DEEP" Request 422 InvalidArgument "the model's subgraphs are nested too deeply";
    ModelCycle "MODEL_CYCLE" Request 422 InvalidArgument "a function of the model calls itself";
    ModelUnsupported "MODEL_UNSUPPORTED" Request 422 InvalidArgument "an input or output cannot be served as a tensor";
    ModelRefused "MODEL_REFUSED" Request 422 InvalidArgument "the model is damaged or cannot be loaded";
    DylibFormat "DYLIB_FORMAT" Request 422 InvalidArgument "the native library is damaged, or made for another machine";
    DylibAbi "DYLIB_ABI" Request 422 InvalidArgument "the native library was not built for this version of the binary interface";
    DylibSymbol "DYLIB_SYMBOL" Request 422 InvalidArgument "the native library does not export the model's table";
    DylibDependency "DYLIB_DEPENDENCY" Request 422 InvalidArgument "the native library needs another library or symbol that this machine lacks";
    PrepareFailed "PREPARE_FAILED" Request 422 FailedPrecondition "the model failed or died while it was loaded and warmed up";
    ExecutionRefused "EXECUTION_REFUSED" Request 422 FailedPrecondition "the server does not run native models in its own process";
    RequestLogSalt "REQUEST_LOG_SALT" Request 422 FailedPrecondition "the request log is to hash values, and the server has no secret for it";
    LibraryPinned "LIBRARY_PINNED" Runner 503 ResourceExhausted "too many native libraries of earlier versions stay mapped in this process";
    GoldenFailed "GOLDEN_FAILED" Request 422 FailedPrecondition "a golden row did not give the expected outputs";
    PrepareDeadline "PREPARE_DEADLINE" Request 504 DeadlineExceeded "the model took too long to load and warm up";
    GenerationStale "GENERATION_STALE" Request 412 FailedPrecondition "the model has changed since the generation given in If-Match";
    NothingToRollBack "NOTHING_TO_ROLL_BACK" Request 409 FailedPrecondition "there is no earlier version to go back to";
    VersionInUse "VERSION_IN_USE" Request 409 FailedPrecondition "the version is being served";
    VersionCollected "VERSION_COLLECTED" Request 409 FailedPrecondition "the version's files were collected or removed";
    PartMissing "PART_MISSING" Request 404 NotFound "the version has no such part";

    // The machine under us.
    OnnxUnavailable "ONNX_UNAVAILABLE" Dependency 503 Unavailable "ONNX Runtime is not loaded";
    StoreFull "STORE_FULL" Dependency 507 ResourceExhausted "the disk under the store is full";
    StoreReadOnly "STORE_READ_ONLY" Dependency 503 Unavailable "the store cannot be written";
    StoreIo "STORE_IO" Dependency 503 Unavailable "the disk under the store failed";
    StoreCorrupt "STORE_CORRUPT" Dependency 500 DataLoss "a stored file is not what was stored";
    StoreLocked "STORE_LOCKED" Dependency 503 Unavailable "another process uses the store";
    StoreVersion "STORE_VERSION" Dependency 500 FailedPrecondition "the store was written by a newer Baton";
    ShuttingDown "SHUTTING_DOWN" Runner 503 Unavailable "the server is shutting down";
    BadConfig "BAD_CONFIG" Runner 500 FailedPrecondition "a setting given at start is not acceptable";
    Internal "INTERNAL" Runner 500 Internal "a defect of Baton";
}

impl Code {
    /// The code of this identifier.
    pub fn from_id(id: &str) -> Option<Code> {
        Code::ALL.iter().copied().find(|code| code.id() == id)
    }

    /// Seconds after which a retry makes sense, for codes that mean "not now".
    pub fn retry_after(self) -> Option<u32> {
        matches!(
            self,
            Code::Overloaded
                | Code::WorkerLost
                | Code::ModelMemory
                | Code::UploadBusy
                | Code::UploadInProgress
                | Code::ModelNotReady
                | Code::ShuttingDown
                | Code::StoreIo
                | Code::StoreReadOnly
        )
        .then_some(1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn identifiers_are_unique_and_pages_begin_with_them() {
        let mut seen = std::collections::HashSet::new();
        for code in Code::ALL {
            assert!(seen.insert(code.id()), "{} is listed twice", code.id());
            assert_eq!(Code::from_id(code.id()), Some(*code));
            let heading = format!("# {}\n", code.id());
            assert!(
                code.page().starts_with(&heading),
                "docs/errors/{}.md must begin with its code",
                code.id()
            );
        }
    }
}
