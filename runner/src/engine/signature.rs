//! Inputs and outputs of a model, and the check of a request against them. One place, whoever asks.

use crate::error::{Code, Error, Result};
use crate::tensor::{Dim, Dtype, Tensor, element_count, format_dims, format_shape, matches};

/// A declared input or output.
#[derive(Debug, Clone, PartialEq)]
pub struct TensorSpec {
    pub name: String,
    pub dtype: Dtype,
    /// Empty for a scalar, `None` when the model does not declare a rank (any shape passes).
    pub shape: Option<Vec<Dim>>,
    /// What the columns of the last dimension stand for (class labels), if the model says so.
    pub labels: Option<Vec<String>>,
}

/// The inputs and outputs of a model, in the model's order.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Signature {
    pub inputs: Vec<TensorSpec>,
    pub outputs: Vec<TensorSpec>,
}

impl TensorSpec {
    /// The shape as the Open Inference Protocol writes it, -1 for what varies. A tensor of undeclared rank is shown as
    /// `[-1]`: the protocol has no word for it.
    pub fn wire_shape(&self) -> Vec<i64> {
        self.shape.as_ref().map_or_else(|| vec![-1], |dims| dims.iter().map(Dim::wire).collect())
    }

    fn check(&self, tensor: &Tensor) -> Result<()> {
        if tensor.dtype() != self.dtype {
            return Err(Error::new(
                Code::BadDtype,
                format!("input {:?} takes {}, {} came", self.name, self.dtype, tensor.dtype()),
            ));
        }
        match &self.shape {
            Some(dims) if !matches(tensor.shape(), dims) => Err(Error::new(
                Code::BadShape,
                format!(
                    "input {:?} takes shape {}, {} came",
                    self.name,
                    format_dims(dims),
                    format_shape(tensor.shape())
                ),
            )),
            _ => Ok(()),
        }
    }

    /// A tensor of zeros (empty strings) with every dimension that varies set to 1, for a first run.
    pub(crate) fn synthetic(&self) -> Option<Tensor> {
        let one = |dim: &Dim| match dim {
            Dim::Fixed(size) => *size,
            Dim::Any(_) => 1,
        };
        let shape: Vec<i64> = self.shape.as_ref()?.iter().map(one).collect();
        let count = element_count(&shape).ok()?;
        match self.dtype.width() {
            Some(width) => Tensor::raw(self.dtype, shape, vec![0; count.checked_mul(width)?].into()).ok(),
            None => Tensor::text(shape, vec![bytes::Bytes::new(); count]).ok(),
        }
    }
}

impl Signature {
    /// Puts named inputs into the model's order and checks each.
    ///
    /// # Errors
    /// `INPUT_NAMES`, `BAD_DTYPE` or `BAD_SHAPE`, saying what was expected and what came.
    pub fn arrange(&self, mut given: Vec<(String, Tensor)>) -> Result<Vec<Tensor>> {
        let mut inputs = Vec::with_capacity(self.inputs.len());
        for spec in &self.inputs {
            let Some(position) = given.iter().position(|(name, _)| *name == spec.name) else {
                return Err(self.wrong_names(format!("input {:?} is missing", spec.name)));
            };
            let (_, tensor) = given.swap_remove(position);
            spec.check(&tensor)?;
            inputs.push(tensor);
        }
        if let Some((name, _)) = given.first() {
            let twice = self.inputs.iter().any(|spec| spec.name == *name);
            let fault = if twice { "is given twice" } else { "is not one of the model's" };
            return Err(self.wrong_names(format!("input {name:?} {fault}")));
        }
        Ok(inputs)
    }

    fn wrong_names(&self, fault: String) -> Error {
        let names: Vec<&str> = self.inputs.iter().map(|spec| spec.name.as_str()).collect();
        Error::new(Code::InputNames, format!("{fault}; the inputs are {names:?}"))
    }

    /// The positions of requested outputs; all of them if none is named.
    ///
    /// # Errors
    /// `OUTPUT_NAMES`.
    pub fn select<'a>(&self, names: impl IntoIterator<Item = &'a str>) -> Result<Vec<usize>> {
        let mut positions = Vec::new();
        for name in names {
            let known: Vec<&str> = self.outputs.iter().map(|spec| spec.name.as_str()).collect();
            let position = known.iter().position(|known| *known == name).ok_or_else(|| {
                Error::new(
                    Code::OutputNames,
                    format!("{name:?} is no output of the model; the outputs are {known:?}"),
                )
            })?;
            if positions.contains(&position) {
                return Err(Error::new(Code::OutputNames, format!("output {name:?} is requested twice")));
            }
            positions.push(position);
        }
        if positions.is_empty() {
            positions = (0..self.outputs.len()).collect();
        }
        Ok(positions)
    }
}
