//! What a model's outputs say of each row: a class, a number, what it gives the right class.

use std::collections::BTreeSet;

use baton_runner::engine::{Signature, TensorSpec};
use baton_runner::tensor::{Dtype, Elements, Tensor, json};

use super::metric::Answers;
use super::rule::Rule;

/// Scores that are kept until all rows are there; beyond it there is no log loss.
const MOST_SCORES: usize = 1 << 25;

/// Which outputs say what.
pub(super) struct Output {
    /// Those to ask for.
    pub positions: Vec<usize>,
    form: Form,
    labels: Labels,
    /// The classes in the model's order, if it or its bundle names them: of the scores' columns, and of numbers that it answers.
    classes: Option<Vec<String>>,
}

#[derive(Clone, Copy, PartialEq)]
enum Form {
    /// The first is the class; the second, if asked for, may be probabilities.
    Label,
    /// Probabilities or scores; the largest is the class.
    Scores,
    Number,
}

/// When two texts name the same class.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Labels {
    /// `3`, `3.0` and `03` do; so do `true` and `1`.
    Numbers,
    /// `3` and `3.0` do, `03` is another.
    Texts,
    Booleans,
}

impl Labels {
    fn canonical(self, label: &str) -> String {
        let label = label.trim();
        let word = label.to_ascii_lowercase();
        match (self, word.as_str()) {
            (Labels::Booleans, "true" | "1" | "1.0") => "true".into(),
            (Labels::Booleans, "false" | "0" | "0.0") => "false".into(),
            (Labels::Booleans, _) => label.to_owned(),
            (Labels::Numbers, "true") => "1".into(),
            (Labels::Numbers, "false") => "0".into(),
            (Labels::Texts, _) if !is_plain(label) => label.to_owned(),
            _ => whole(label).unwrap_or_else(|| label.to_owned()),
        }
    }
}

/// A whole number, however it is written.
fn whole(text: &str) -> Option<String> {
    if let Ok(number) = text.parse::<i128>() {
        return Some(number.to_string());
    }
    let number: f64 = text.parse().ok()?;
    (number.fract() == 0.0 && number.abs() < 9e15).then(|| (number as i64).to_string())
}

/// Digits with at most a minus and a point, and no zero in front that could mean something.
fn is_plain(text: &str) -> bool {
    let digits = text.strip_prefix('-').unwrap_or(text);
    let is_padded = digits.len() > 1 && digits.starts_with('0') && !digits.starts_with("0.");
    !is_padded && digits.chars().all(|sign| sign.is_ascii_digit() || sign == '.')
}

fn is_float(dtype: Dtype) -> bool {
    matches!(dtype, Dtype::Fp16 | Dtype::Bf16 | Dtype::Fp32 | Dtype::Fp64)
}

/// The smallest step from 1: scikit-learn keeps probabilities so far from 0 and 1.
fn epsilon(dtype: Dtype) -> f64 {
    match dtype {
        Dtype::Bf16 => 0.007_812_5,
        Dtype::Fp16 => 0.000_976_562_5,
        Dtype::Fp32 => f64::from(f32::EPSILON),
        _ => f64::EPSILON,
    }
}

impl Output {
    /// Finds the prediction: the rule's output, else an output of integers or texts, else floats. `classes` are those of a model that
    /// does not name them itself, in its order.
    pub(super) fn of(signature: &Signature, classes: Option<&[String]>, rule: &Rule) -> Result<Self, String> {
        let outputs = &signature.outputs;
        let names = || outputs.iter().map(|output| output.name.as_str()).collect::<Vec<_>>();
        let chosen = match &rule.output {
            Some(name) => Some(
                outputs
                    .iter()
                    .position(|output| output.name == *name)
                    .ok_or_else(|| format!("the model has no output {name:?}; it has {:?}", names()))?,
            ),
            None if rule.metric.is_regression() => None,
            None => outputs.iter().position(|output| !is_float(output.dtype)),
        };
        let chosen = match chosen {
            Some(position) => position,
            None => outputs
                .iter()
                .position(|output| is_float(output.dtype))
                .ok_or_else(|| format!("none of the outputs {:?} can be a prediction", names()))?,
        };
        let labels = match outputs[chosen].dtype {
            Dtype::Bytes => Labels::Texts,
            Dtype::Bool => Labels::Booleans,
            _ => Labels::Numbers,
        };
        if rule.metric.is_regression() {
            return Ok(Self { positions: vec![chosen], form: Form::Number, labels, classes: None });
        }
        let named = |output: &TensorSpec| output.labels.clone().or_else(|| classes.map(<[String]>::to_vec));
        if is_float(outputs[chosen].dtype) {
            let classes = named(&outputs[chosen]);
            let are_numbers = classes.iter().flatten().all(|class| class.parse::<f64>().is_ok());
            let labels = if are_numbers { Labels::Numbers } else { Labels::Texts };
            return Ok(Self { positions: vec![chosen], form: Form::Scores, labels, classes });
        }
        let wide = |output: &TensorSpec| {
            is_float(output.dtype) && output.shape.as_ref().is_none_or(|dims| dims.len() == 2)
        };
        let scores = outputs.iter().position(wide);
        let positions = std::iter::once(chosen).chain(scores).collect();
        let classes = named(&outputs[scores.unwrap_or(chosen)]);
        Ok(Self { positions, form: Form::Label, labels, classes })
    }

    /// The class that a whole number counts to, if the classes are no numbers themselves: then it would be the label.
    fn counted(&self, label: &str) -> Option<&String> {
        let classes = self.classes.as_ref().filter(|_| self.labels == Labels::Numbers)?;
        let are_numbers = classes.iter().all(|class| whole(&self.labels.canonical(class)).is_some());
        classes.get(whole(label)?.parse::<usize>().ok()?).filter(|_| !are_numbers)
    }
}

/// Answers of all rows so far.
#[derive(Default)]
pub(super) struct Collected {
    /// As the model gave them, where it gives some.
    labels: Vec<String>,
    numbers: Vec<f64>,
    scores: Vec<f64>,
    /// Columns of `scores`.
    width: usize,
    /// The column of the largest score; `None` with NaN among them.
    best: Vec<Option<usize>>,
    epsilon: f64,
    too_many: bool,
}

impl Collected {
    /// Takes the outputs of so many rows.
    pub(super) fn add(&mut self, output: &Output, tensors: &[Tensor], rows: usize) -> Result<(), String> {
        let Some(first) = tensors.first() else { return Err("the model gave no output".into()) };
        match output.form {
            Form::Number => self.numbers.extend(each(numbers(first)?, rows, "numbers")?),
            Form::Label => {
                self.labels.extend(each(texts(first)?, rows, "labels")?);
                tensors.get(1).map_or(Ok(()), |scores| self.add_scores(scores, rows))?;
            }
            Form::Scores => self.add_scores(first, rows)?,
        }
        Ok(())
    }

    fn add_scores(&mut self, tensor: &Tensor, rows: usize) -> Result<(), String> {
        let scores = numbers(tensor)?;
        let width = scores.len() / rows;
        if scores.len() % rows != 0 || width == 0 || (self.width != 0 && self.width != width) {
            return Err(format!("{rows} rows gave {} scores", scores.len()));
        }
        (self.width, self.epsilon) = (width, epsilon(tensor.dtype()));
        self.best.extend(scores.chunks(width).map(best));
        self.too_many |= self.scores.len() + scores.len() > MOST_SCORES;
        if !self.too_many {
            self.scores.extend(scores);
        }
        Ok(())
    }

    /// What was answered, and the truth in the same words.
    ///
    /// # Errors
    /// Why the labels of the holdout cannot be what this model answers.
    pub(super) fn answers(self, output: &Output, truth: &[String]) -> Result<(Answers, Vec<String>), Unlike> {
        if output.form == Form::Number {
            return Ok((Answers::Numbers(self.numbers), truth.to_vec()));
        }
        let canonical = |label: &String| output.labels.canonical(label);
        let truth: Vec<String> = truth.iter().map(canonical).collect();
        let known: BTreeSet<&str> = truth.iter().map(String::as_str).collect();
        let label = |label: &String| output.counted(label).map_or_else(|| canonical(label), canonical);
        let labels: Vec<String> = self.labels.iter().map(label).collect();
        // One column is the probability of the second of two classes.
        let columns = self.width.max(2);
        let named = output.classes.as_ref().filter(|classes| classes.len() == columns);
        let named: Option<Vec<String>> = named.map(|classes| classes.iter().map(canonical).collect());
        let classes: Result<Vec<Option<String>>, String> = match (output.form, named) {
            (_, Some(named)) => Ok(named.into_iter().map(Some).collect()),
            (Form::Label, None) => paired(&labels, &self.scores, self.width),
            (_, None) => Ok(numbered(columns, &known)?.into_iter().map(Some).collect()),
        };
        let labels: Vec<Option<String>> = match (output.form, &classes) {
            (Form::Scores, Ok(classes)) => {
                self.best.iter().map(|best| classes.get((*best)?).cloned().flatten()).collect()
            }
            _ => labels.into_iter().map(Some).collect(),
        };
        let words: BTreeSet<&str> =
            labels.iter().chain(classes.iter().flatten()).flatten().map(String::as_str).collect();
        if !words.is_empty() && words.is_disjoint(&known) {
            return Err(Unlike::Strange(format!(
                "the model answers {}, and the labels of the holdout are {}",
                some_of(&words),
                some_of(&known)
            )));
        }
        let right = classes.and_then(|classes| self.right(&classes, &truth));
        Ok((Answers::Classes { labels, right }, truth))
    }

    /// What each row gives the right class.
    fn right(&self, classes: &[Option<String>], truth: &[String]) -> Result<Vec<f64>, String> {
        if self.too_many {
            return Err(format!("there are more than {MOST_SCORES} probabilities"));
        }
        let rows = self.scores.chunks(self.width.max(1)).zip(truth).enumerate();
        rows.map(|(row, (scores, truth))| {
            let sum: f64 = scores.iter().sum();
            let is_distribution = scores.iter().all(|score| (0.0..=1.0).contains(score))
                && (self.width == 1 || (sum - 1.0).abs() < 1e-3);
            if !is_distribution {
                return Err(format!("the scores of row {} are no probabilities", row + 1));
            }
            let at = classes.iter().position(|class| class.as_ref() == Some(truth));
            let share = match (at, self.width) {
                (Some(0), 1) => 1.0 - scores[0],
                (Some(_), 1) => scores[0],
                (Some(at), _) => scores[at],
                // The model does not know the class, and gives it nothing.
                (None, _) if classes.iter().all(Option::is_some) => 0.0,
                (None, _) => {
                    return Err(format!(
                        "no answer of the model is {truth:?}, so it is not known which column of its probabilities is that \
                         class; name the columns, as ZipMap does"
                    ));
                }
            };
            Ok(share.clamp(self.epsilon, 1.0 - self.epsilon))
        })
        .collect()
    }
}

/// Why a model's answers and the holdout's labels have nothing to do with each other.
#[derive(Debug, PartialEq)]
pub(super) enum Unlike {
    /// They are other words.
    Strange(String),
    /// They may be the same; nothing says so.
    Unnamed(String),
}

/// The classes of columns without names: their numbers, if that can be.
fn numbered(columns: usize, truth: &BTreeSet<&str>) -> Result<Vec<String>, Unlike> {
    let numbers: Vec<String> = (0..columns).map(|column| column.to_string()).collect();
    // With a class 0 there is one too many; without, they may count from 1.
    let fits = truth.contains("0") || truth.iter().all(|label| numbers.iter().any(|number| number == label));
    if fits {
        return Ok(numbers);
    }
    Err(Unlike::Unnamed(format!(
        "the model's scores have no names, so their classes are 0 to {}, and the labels of the holdout are {}; name the \
         columns in the bundle's classes, or give the class as an output",
        columns - 1,
        some_of(truth)
    )))
}

/// The classes of the columns, from answers and largest scores of the same rows; `None` for a column that never was the largest.
fn paired(labels: &[String], scores: &[f64], width: usize) -> Result<Vec<Option<String>>, String> {
    if width < 2 {
        return Err("the model gives no probabilities of its classes".into());
    }
    let mut classes: Vec<Option<String>> = vec![None; width];
    for (label, row) in labels.iter().zip(scores.chunks(width)) {
        let Some(at) = best(row).filter(|at| row.iter().filter(|score| **score == row[*at]).count() == 1)
        else {
            continue;
        };
        let is_elsewhere =
            classes.iter().enumerate().any(|(other, class)| other != at && class.as_ref() == Some(label));
        if is_elsewhere || classes[at].as_ref().is_some_and(|class| class != label) {
            return Err("its answers are not always the class with the largest probability, so the columns have no names".into());
        }
        classes[at] = Some(label.clone());
    }
    Ok(classes)
}

/// The column of the largest score, the first of several; of one column whether it is above a half.
fn best(row: &[f64]) -> Option<usize> {
    if row.iter().any(|score| score.is_nan()) {
        return None;
    }
    match row {
        [score] => Some(usize::from(*score > 0.5)),
        _ => row
            .iter()
            .enumerate()
            .reduce(|best, next| if next.1 > best.1 { next } else { best })
            .map(|(at, _)| at),
    }
}

fn some_of(words: &BTreeSet<&str>) -> String {
    const SHOWN: usize = 5;
    let shown: Vec<String> = words.iter().take(SHOWN).map(|word| format!("{word:?}")).collect();
    let more = if words.len() > SHOWN { ", ..." } else { "" };
    format!("{}{more}", shown.join(", "))
}

fn each<T>(values: Vec<T>, rows: usize, what: &str) -> Result<Vec<T>, String> {
    if values.len() == rows {
        Ok(values)
    } else {
        Err(format!("{rows} rows gave {} {what}, not one each", values.len()))
    }
}

/// The elements as numbers, in row-major order; NaN for what is none.
fn numbers(tensor: &Tensor) -> Result<Vec<f64>, String> {
    Ok(match (tensor.elements(), tensor.dtype()) {
        (Elements::Raw(bytes), Dtype::Fp32) => {
            let (elements, _) = bytes.as_chunks::<4>();
            elements.iter().map(|element| f64::from(f32::from_le_bytes(*element))).collect()
        }
        (Elements::Raw(bytes), Dtype::Fp64) => {
            let (elements, _) = bytes.as_chunks::<8>();
            elements.iter().map(|element| f64::from_le_bytes(*element)).collect()
        }
        _ => texts(tensor)?.iter().map(|text| text.parse().unwrap_or(f64::NAN)).collect(),
    })
}

/// The elements as text, in row-major order.
fn texts(tensor: &Tensor) -> Result<Vec<String>, String> {
    if let Elements::Text(elements) = tensor.elements() {
        return Ok(elements.iter().map(|element| String::from_utf8_lossy(element).into_owned()).collect());
    }
    let mut text = Vec::new();
    json::write(tensor, &mut text).map_err(|error| error.to_string())?;
    let text = String::from_utf8_lossy(&text);
    let values: Vec<serde_json::Value> = serde_json::from_str(&json::quote_non_finite(&text))
        .map_err(|error| format!("an output is no list of values: {error}"))?;
    Ok(values.iter().map(|value| value.as_str().map_or_else(|| value.to_string(), str::to_owned)).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::function::evaluate::metric::Metrics;

    fn words(words: &[&str]) -> Vec<String> {
        words.iter().map(|word| (*word).to_owned()).collect()
    }

    fn output(form: Form, labels: Labels, classes: Option<&[&str]>) -> Output {
        Output { positions: vec![0, 1], form, labels, classes: classes.map(words) }
    }

    fn floats(rows: &[&[f32]]) -> Tensor {
        let bytes: Vec<u8> = rows.concat().iter().flat_map(|value| value.to_le_bytes()).collect();
        Tensor::raw(Dtype::Fp32, vec![rows.len() as i64, rows[0].len() as i64], bytes.into())
            .expect("a tensor")
    }

    fn integers(values: &[i64]) -> Tensor {
        let bytes: Vec<u8> = values.iter().flat_map(|value| value.to_le_bytes()).collect();
        Tensor::raw(Dtype::Int64, vec![values.len() as i64], bytes.into()).expect("a tensor")
    }

    fn metrics(output: &Output, tensors: &[Tensor], truth: &[&str]) -> Result<Metrics, Unlike> {
        let mut collected = Collected::default();
        collected.add(output, tensors, truth.len()).expect("outputs that fit");
        let (answers, truth) = collected.answers(output, &words(truth))?;
        Ok(Metrics::of(&truth, &answers, 0.0))
    }

    #[test]
    fn not_a_number_is_no_class() {
        let scores = output(Form::Scores, Labels::Numbers, None);
        for rows in [[[f32::NAN, f32::NAN].as_slice(); 2], [[f32::NAN].as_slice(); 2]] {
            let metrics = metrics(&scores, &[floats(&rows)], &["0", "0"]).expect("figures");
            assert_eq!(metrics.values["accuracy"], 0.0);
            assert!(!metrics.values.contains_key("log_loss"), "{metrics:?}");
        }
    }

    #[test]
    fn columns_without_names_get_those_of_the_answers() {
        let labelled = output(Form::Label, Labels::Numbers, None);
        let scores = floats(&[&[0.7, 0.2, 0.1], &[0.1, 0.6, 0.3], &[0.2, 0.3, 0.5]]);
        let loss = |labels: &[i64], truth: &[&str]| {
            let metrics = metrics(&labelled, &[integers(labels), scores.clone()], truth).expect("figures");
            metrics.values.get("log_loss").copied().ok_or(metrics.no_log_loss.unwrap_or_default())
        };
        // sklearn.metrics.log_loss(y, p, labels=[1, 2, 3])
        let found = loss(&[1, 2, 3], &["1", "2", "2"]).expect("a loss");
        assert!((found - (0.7f64.ln() + 0.6f64.ln() + 0.3f64.ln()) / -3.0).abs() < 1e-6, "{found}");
        assert!(loss(&[1, 2, 2], &["1", "2", "3"]).expect_err("no names").contains("largest probability"));
        let unknown = loss(&[1, 2, 3], &["1", "2", "4"]).expect("all columns are known");
        assert!(unknown > 5.0, "a class that the model does not know has no share: {unknown}");
        let two = floats(&[&[0.7, 0.2, 0.1], &[0.6, 0.2, 0.2]]);
        let metrics = metrics(&labelled, &[integers(&[1, 1]), two], &["1", "2"]).expect("figures");
        assert!(metrics.no_log_loss.expect("a reason").contains("\"2\""));
    }

    #[test]
    fn probabilities_stay_as_far_from_nothing_as_with_scikit_learn() {
        let scores = output(Form::Scores, Labels::Numbers, None);
        let metrics = metrics(&scores, &[floats(&[&[1.0, 0.0], &[0.5, 0.5], &[0.0, 1.0]])], &["1", "0", "1"]);
        // sklearn.metrics.log_loss of the same FP32 array
        assert!((metrics.expect("figures").values["log_loss"] - 5.5452).abs() < 1e-4);
    }

    #[test]
    fn one_column_is_the_probability_of_class_1() {
        let scores = output(Form::Scores, Labels::Numbers, None);
        let column = || [floats(&[&[0.8], &[0.4]])];
        let metrics_of = |truth: &[&str]| metrics(&scores, &column(), truth);
        let found = metrics_of(&["1", "0"]).expect("figures").values["log_loss"];
        assert!((found - (0.8f64.ln() + 0.6f64.ln()) / -2.0).abs() < 1e-6, "{found}");
        assert_eq!(metrics_of(&["True", "FALSE"]).expect("figures").values["accuracy"], 1.0);
        assert!(matches!(metrics_of(&["yes", "no"]), Err(Unlike::Unnamed(_))));
    }

    #[test]
    fn scores_without_names_never_pass_for_classes_that_count_from_1() {
        let scores = output(Form::Scores, Labels::Numbers, None);
        let rows = || [floats(&[&[0.1, 0.8, 0.1], &[0.1, 0.1, 0.8]])];
        assert!(matches!(metrics(&scores, &rows(), &["1", "3"]), Err(Unlike::Unnamed(_))));
        assert_eq!(metrics(&scores, &rows(), &["0", "2"]).expect("figures").values["accuracy"], 0.5);
        let named = output(Form::Scores, Labels::Texts, Some(&["a", "b", "c"]));
        assert_eq!(metrics(&named, &rows(), &["b", "c"]).expect("figures").values["accuracy"], 1.0);
        assert!(matches!(metrics(&named, &rows(), &["x", "y"]), Err(Unlike::Strange(_))));
    }

    #[test]
    fn a_number_is_the_class_that_it_counts_to_unless_classes_are_numbers() {
        let accuracy = |classes: &[&str], answers: &[i64], truth: &[&str]| {
            let output = output(Form::Label, Labels::Numbers, Some(classes));
            metrics(&output, &[integers(answers)], truth).expect("figures").values["accuracy"]
        };
        assert_eq!(
            accuracy(&["setosa", "virginica", "x"], &[0, 1, 2], &["setosa", "virginica", "setosa"]),
            2.0 / 3.0
        );
        assert_eq!(accuracy(&["1", "2", "3"], &[1, 2, 3], &["1", "2", "3"]), 1.0);
        assert_eq!(accuracy(&["False", "True"], &[0, 1], &["False", "True"]), 1.0);
    }

    #[test]
    fn labels_are_the_same_by_what_the_model_answers() {
        let same = |labels: Labels, one: &str, other: &str| labels.canonical(one) == labels.canonical(other);
        assert!(same(Labels::Numbers, "3", " 3.0") && same(Labels::Numbers, "01067", "1067"));
        assert!(same(Labels::Numbers, "-0.0", "0") && same(Labels::Numbers, "TRUE", "1"));
        assert!(
            same(Labels::Texts, "3", "3.0")
                && same(Labels::Texts, "0", "-0.0")
                && same(Labels::Texts, "0.5", "0.5")
        );
        assert!(!same(Labels::Texts, "01067", "1067") && !same(Labels::Texts, "1e1", "10"));
        for text in ["True", "TRUE", "true", "1"] {
            assert!(same(Labels::Booleans, text, "true"), "{text}");
        }
    }

    #[test]
    fn numbers_are_those_of_the_tensor_and_not_their_shortest_text() {
        let value = 1_048_576.06_f32;
        assert_eq!(numbers(&floats(&[&[value]])).expect("numbers"), [f64::from(value)]);
    }
}
