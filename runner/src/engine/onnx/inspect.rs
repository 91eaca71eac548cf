#[derive(Debug, Default)]
pub struct Inspection {
    pub inputs: Vec<ValueInfo>,
    pub outputs: Vec<ValueInfo>,
    pub rewritten: Option<Vec<u8>>,
    pub class_labels: Vec<(String, ClassLabels)>,
}
#[derive(Debug)]
pub struct ValueInfo {
    pub name: String,
    pub shape: Option<Vec<()>>,
}
#[derive(Debug)]
pub enum ClassLabels {
    Int64(Vec<i64>),
    Text(Vec<String>),
}
#[derive(Default)]
pub struct InspectLimits {}
#[derive(Debug, thiserror::Error)]
pub enum InspectError {
    #[error("e")]
    Empty,
    #[error("e")]
    WrongFormat {},
    #[error("e")]
    ExternalData {},
    #[error("e")]
    TooDeep {},
    #[error("e")]
    FunctionCycle {},
    #[error("e")]
    UnsupportedValue {},
    #[error("e")]
    Malformed {},
    #[error("e")]
    BadTensor {},
    #[error("e")]
    TooMany {},
}
pub fn inspect(_m: &[u8], _l: &InspectLimits) -> Result<Inspection, InspectError> {
    Ok(Inspection::default())
}
