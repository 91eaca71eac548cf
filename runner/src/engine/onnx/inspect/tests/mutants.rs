//! Damaged and hostile bytes: the inspection answers, soon, and never panics.
//!
//! The bounds on time are generous (a busy machine, no optimisation); what they catch is growth, not slowness.

use std::time::{Duration, Instant};

use super::super::*;
use super::build::*;

/// Marsaglia's xorshift: the same mutants in every run.
struct Random(u64);

impl Random {
    fn below(&mut self, bound: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 % bound.max(1) as u64) as usize
    }
}

/// A model with some of everything.
fn seeds() -> Vec<Vec<u8>> {
    let labels = attribute("classlabels_strings").text(9, "a").text(9, "b");
    let zipmap = node("ZipMap", &["s"], &["p"]).domain("ai.onnx.ml").attribute(labels);
    let classifier = graph().node(zipmap).output(value("p", dictionaries(STRING)));
    let subgraphs = graph().node(branch(graph().node(branch(graph().node(constant(weight("c")))))));
    let numbers = tensor("n", INT64, &[3]).bytes(7, &[1, 0x80, 0x01, 2]);
    let tensors = graph().initializer(numbers).sparse_initializer(sparse(weight("s"), indices(), &[4]));
    let functions =
        served(graph().node(call("a"))).function(function("a").step(call("b"))).function(function("b"));
    vec![
        model().opset("ai.onnx.ml", 3).graph(classifier).finish(),
        served(subgraphs).finish(),
        served(tensors).finish(),
        functions.message(20, Proto::default().message(2, graph().initializer(weight("t")))).finish(),
    ]
}

fn mutate(random: &mut Random, seed: &[u8]) -> Vec<u8> {
    let mut bytes = seed.to_vec();
    for _ in 0..=random.below(4) {
        let at = random.below(bytes.len());
        let end = at + random.below(bytes.len().saturating_sub(at).min(24));
        match random.below(6) {
            0 => bytes.truncate(at),
            1 => drop(bytes.drain(at..end)),
            2 => {
                let copied = bytes.get(at..end).unwrap_or_default().to_vec();
                let target = random.below(bytes.len());
                drop(bytes.splice(target..target, copied));
            }
            3 => bytes.insert(at, random.below(256) as u8),
            // Lengths and counts like to be extreme.
            4 => drop(bytes.splice(at..at, [0xff; 9])),
            _ => {
                if let Some(byte) = bytes.get_mut(at) {
                    *byte ^= 1 << random.below(8);
                }
            }
        }
    }
    bytes
}

#[test]
fn mutants_are_answered() {
    let limits = InspectLimits::default();
    let seeds = seeds();
    for seed in &seeds {
        assert_eq!(inspect(seed, &limits).err(), None);
    }
    let (mut random, start) = (Random(0x9e37_79b9_7f4a_7c15), Instant::now());
    let (mut passed, mut refused) = (0, 0);
    for round in 0..20_000 {
        let mutant = mutate(&mut random, &seeds[round % seeds.len()]);
        match inspect(&mutant, &limits) {
            Ok(Inspection { rewritten: Some(rewritten), outputs, .. }) => {
                passed += 1;
                let again = inspect(&rewritten, &limits).map(|again| (again.outputs, again.rewritten));
                assert_eq!(again, Ok((outputs, None)), "mutant {round}: {mutant:02x?}");
            }
            Ok(_) => passed += 1,
            Err(error) => {
                refused += 1;
                assert!(error.to_string().len() < 4096, "mutant {round}: {error}");
            }
        }
    }
    assert!(
        passed > 500 && refused > 5_000,
        "the mutants are no longer mixed: {passed} passed, {refused} refused"
    );
    assert!(start.elapsed() < Duration::from_secs(60));
}

#[test]
fn every_cut_is_answered() {
    for seed in seeds() {
        for length in 0..seed.len() {
            drop(inspect(&seed[..length], &InspectLimits::default()));
        }
    }
}

/// Within some seconds, unoptimised, whatever the answer.
fn check_soon(case: &str, model: Vec<u8>) -> Option<InspectError> {
    let start = Instant::now();
    let error = inspect(&model, &InspectLimits::default()).err();
    assert!(start.elapsed() < Duration::from_secs(20), "{case}: {:?}", start.elapsed());
    error
}

#[test]
fn bombs_take_linear_time() {
    let mut nested = graph();
    for _ in 0..4_000 {
        nested = graph().node(branch(nested));
    }
    let deep = check_soon("nested subgraphs", model().graph(nested).finish());
    assert_eq!(deep, Some(InspectError::TooDeep { limit: 8 }));

    let empty = |tag: u8| [tag, 0].repeat(4_000_000);
    let nodes = check_soon("empty nodes", model().bytes(7, &empty(0x0a)).finish());
    assert_eq!(nodes, Some(InspectError::TooMany { what: "nodes", limit: 500_000 }));
    let tensors = check_soon("empty sparse initialisers", model().bytes(7, &empty(0x7a)).finish());
    assert_eq!(tensors, Some(InspectError::TooMany { what: "tensors", limit: 500_000 }));
    let inputs = check_soon("empty inputs", model().bytes(7, &empty(0x5a)).finish());
    assert_eq!(inputs, Some(InspectError::TooMany { what: "inputs and outputs", limit: 10_000 }));
    let attributes = model().graph(graph().node(Proto::default().bytes(5, &empty(0x3a)))).finish();
    assert_eq!(check_soon("empty floats", attributes), None);
    let dims =
        graph().initializer(Proto::default().bytes(1, &[1; 4_000_000]).int(2, FLOAT).bytes(9, &[0; 4]));
    assert!(matches!(check_soon("dims", model().graph(dims).finish()), Some(InspectError::BadTensor { .. })));
    let numbers = tensor("n", INT64, &[4_000_000]).bytes(7, &vec![0; 4_000_000]);
    assert_eq!(check_soon("numbers", served(graph().initializer(numbers)).finish()), None);
    let mut functions = model().graph(graph()).finish();
    functions.extend([0xca, 0x01, 0x00].repeat(1_000_000));
    let error = check_soon("empty functions", functions);
    assert!(matches!(error, Some(InspectError::TooMany { limit: 10_000, .. })), "{error:?}");
}
