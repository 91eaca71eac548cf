//! Rows with known answers, and how their columns become a model's inputs.

use baton_runner::engine::Signature;
use baton_runner::tensor::{Dim, Dtype, Tensor, json};

use crate::function::Failure;

/// A table in memory: the features as text, column by column, and the truth.
#[derive(Debug)]
pub(super) struct Holdout {
    names: Vec<String>,
    /// One vector a column.
    columns: Vec<Vec<String>>,
    /// The labels as they are written.
    pub truth: Vec<String>,
}

/// Which columns fill which input.
#[derive(Debug, PartialEq)]
pub(super) struct Mapping(Vec<Filling>);

#[derive(Debug, PartialEq)]
struct Filling {
    name: String,
    dtype: Dtype,
    columns: Vec<usize>,
    /// Sizes behind the first dimension.
    rest: Vec<i64>,
    /// A model that has the rows in its shape takes so many at a time.
    batch: Option<i64>,
}

impl Holdout {
    /// Reads a CSV file with a header. `features` are the columns that a model sees, in its order; all but the label if nothing is said.
    ///
    /// # Errors
    /// [`Failure::Never`] if it is no such table, has no row, or lacks a column.
    pub(super) fn read(
        bytes: &[u8],
        label: Option<&str>,
        features: Option<&[String]>,
        max_rows: usize,
    ) -> Result<Self, Failure> {
        let never = |text: String| Failure::Never(format!("the holdout {text}"));
        let label = label.ok_or_else(|| {
            Failure::Never("neither the rule nor the bundle names the label's column of the holdout".into())
        })?;
        let mut reader = csv::Reader::from_reader(bytes);
        let header = reader.headers().map_err(|error| never(format!("is no CSV: {error}")))?.clone();
        let position = |name: &str| {
            header.iter().position(|column| column == name).ok_or_else(|| {
                never(format!("has no column {name:?}; it has {:?}", header.iter().collect::<Vec<_>>()))
            })
        };
        let at = position(label)?;
        let chosen: Vec<usize> = match features {
            Some(features) => features.iter().map(|name| position(name)).collect::<Result<_, _>>()?,
            None => (0..header.len()).filter(|column| *column != at).collect(),
        };
        let mut holdout = Self {
            names: chosen.iter().map(|column| header[*column].to_owned()).collect(),
            columns: vec![Vec::new(); chosen.len()],
            truth: Vec::new(),
        };
        for record in reader.records().take(max_rows) {
            let record = record.map_err(|error| never(format!("cannot be read: {error}")))?;
            // Nobody knows what is right there.
            if record[at].trim().is_empty() {
                continue;
            }
            holdout.truth.push(record[at].trim().to_owned());
            for (cells, column) in holdout.columns.iter_mut().zip(&chosen) {
                cells.push(record[*column].to_owned());
            }
        }
        if holdout.truth.is_empty() {
            return Err(never("has no row with a label".into()));
        }
        Ok(holdout)
    }

    /// Rows.
    pub(super) fn len(&self) -> usize {
        self.truth.len()
    }

    /// Finds the columns of each input: a single input takes all columns in their order, several are found by name.
    ///
    /// # Errors
    /// What does not fit, in words.
    pub(super) fn fit(&self, signature: &Signature) -> Result<Mapping, String> {
        let mut fillings = Vec::new();
        for input in &signature.inputs {
            let columns: Vec<usize> = match signature.inputs.len() {
                1 => (0..self.names.len()).collect(),
                _ => {
                    let found = self.names.iter().position(|name| *name == input.name);
                    vec![found.ok_or_else(|| format!("no column is called as the input {:?}", input.name))?]
                }
            };
            let width = columns.len() as i64;
            let dims = input.shape.clone().unwrap_or_else(|| vec![Dim::Any(None), Dim::Any(None)]);
            let Some((first, behind)) = dims.split_first() else {
                return Err(format!("the input {:?} is a scalar, so it takes no rows", input.name));
            };
            let fixed: i64 =
                behind.iter().map(|dim| if let Dim::Fixed(size) = dim { *size } else { 1 }).product();
            let open = behind.iter().filter(|dim| matches!(dim, Dim::Any(_))).count();
            let fits = match open {
                0 => fixed == width,
                1 => fixed > 0 && width % fixed == 0,
                _ => false,
            };
            if !fits {
                return Err(format!(
                    "the input {:?} takes {}, which {width} columns do not fill",
                    input.name,
                    baton_runner::tensor::format_dims(&dims)
                ));
            }
            let rest = behind
                .iter()
                .map(|dim| if let Dim::Fixed(size) = dim { *size } else { width / fixed })
                .collect();
            let batch = if let Dim::Fixed(size) = first { Some(*size) } else { None };
            fillings.push(Filling { name: input.name.clone(), dtype: input.dtype, columns, rest, batch });
        }
        Ok(Mapping(fillings))
    }

    /// The inputs for these rows, in the model's order.
    ///
    /// # Errors
    /// A cell that the input's datatype cannot hold, in words.
    pub(super) fn tensors(
        &self,
        mapping: &Mapping,
        rows: std::ops::Range<usize>,
    ) -> Result<Vec<Tensor>, String> {
        let mut tensors = Vec::new();
        for filling in &mapping.0 {
            let mut text = String::from("[");
            for row in rows.clone() {
                for column in &filling.columns {
                    if text.len() > 1 {
                        text.push(',');
                    }
                    let cell = self.columns[*column][row].trim();
                    text.push_str(&element(filling.dtype, cell).ok_or_else(|| {
                        let name = &self.names[*column];
                        format!("column {name:?}, row {}: {cell:?} is no {}", row + 1, filling.dtype)
                    })?);
                }
            }
            text.push(']');
            let mut shape = vec![rows.len() as i64];
            shape.extend(&filling.rest);
            let tensor = json::read(filling.dtype, shape, text.as_bytes())
                .map_err(|error| format!("input {:?}: {error}", filling.name))?;
            tensors.push(tensor);
        }
        Ok(tensors)
    }
}

impl Mapping {
    /// How many rows the model takes at a time, if it does not take any number.
    pub(super) fn batch(&self) -> Option<i64> {
        self.0.iter().find_map(|filling| filling.batch)
    }
}

/// A cell as a JSON element; an empty one is NaN where the datatype knows it.
fn element(dtype: Dtype, cell: &str) -> Option<String> {
    match dtype {
        Dtype::Bytes => serde_json::to_string(cell).ok(),
        Dtype::Bool => match cell.to_ascii_lowercase().as_str() {
            "true" | "1" | "1.0" => Some("true".into()),
            "false" | "0" | "0.0" => Some("false".into()),
            _ => None,
        },
        Dtype::Fp16 | Dtype::Bf16 | Dtype::Fp32 | Dtype::Fp64 => match cell.parse::<f64>() {
            Ok(number) if number.is_finite() => Some(format!("{number:?}")),
            Ok(_) => None,
            Err(_) if cell.is_empty() => Some("\"NaN\"".into()),
            Err(_) => None,
        },
        _ => {
            let number: f64 = cell.parse().ok()?;
            match cell.parse::<i128>() {
                Ok(integer) => Some(integer.to_string()),
                Err(_) => (number.fract() == 0.0 && number.abs() < 9e15).then(|| format!("{number:.0}")),
            }
        }
    }
}
