//! Writes small ONNX models, as the bytes of a `ModelProto`.

fn varint(mut value: u64, out: &mut Vec<u8>) {
    while value >= 0x80 {
        out.push((value as u8) | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

fn number(field: u64, value: u64, out: &mut Vec<u8>) {
    varint(field << 3, out);
    varint(value, out);
}

fn bytes(field: u64, value: &[u8], out: &mut Vec<u8>) {
    varint(field << 3 | 2, out);
    varint(value.len() as u64, out);
    out.extend_from_slice(value);
}

fn message(field: u64, out: &mut Vec<u8>, write: impl FnOnce(&mut Vec<u8>)) {
    let mut inner = Vec::new();
    write(&mut inner);
    bytes(field, &inner, out);
}

const FLOAT: u64 = 1;

/// A graph input or output of floats; `None` for a dimension that varies.
fn value(field: u64, name: &str, dims: &[Option<u64>], out: &mut Vec<u8>) {
    message(field, out, |out| {
        bytes(1, name.as_bytes(), out);
        message(2, out, |out| {
            message(1, out, |out| {
                number(1, FLOAT, out);
                message(2, out, |out| {
                    for dim in dims {
                        message(1, out, |out| match dim {
                            Some(size) => number(1, *size, out),
                            None => bytes(2, b"n", out),
                        });
                    }
                });
            });
        });
    });
}

fn floats(name: &str, dims: &[u64], values: &[f32], out: &mut Vec<u8>) {
    message(5, out, |out| {
        for size in dims {
            number(1, *size, out);
        }
        number(2, FLOAT, out);
        bytes(8, name.as_bytes(), out);
        let raw: Vec<u8> = values.iter().flat_map(|value| value.to_le_bytes()).collect();
        bytes(9, &raw, out);
    });
}

fn node(operator: &str, inputs: &[&str], output: &str, out: &mut Vec<u8>) {
    message(1, out, |out| {
        for input in inputs {
            bytes(1, input.as_bytes(), out);
        }
        bytes(2, output.as_bytes(), out);
        bytes(4, operator.as_bytes(), out);
    });
}

fn model(write_graph: impl FnOnce(&mut Vec<u8>)) -> Vec<u8> {
    let mut out = Vec::new();
    number(1, 8, &mut out);
    bytes(2, b"baton-tests", &mut out);
    message(7, &mut out, write_graph);
    message(8, &mut out, |out| number(2, 13, out));
    out
}

/// `y = x + k` for `x` of shape `[n, 4]`: the answer to zeros names the model that gave it.
pub fn add(k: f32) -> Vec<u8> {
    model(|graph| {
        node("Add", &["x", "k"], "y", graph);
        bytes(2, b"add", graph);
        floats("k", &[1], &[k], graph);
        value(11, "x", &[None, Some(4)], graph);
        value(12, "y", &[None, Some(4)], graph);
    })
}

/// `y = max(x)` for `x` of shape `[n, columns]` with `n = 1`: all of a large input is used, and the answer is small.
pub fn largest(columns: u64) -> Vec<u8> {
    model(|graph| {
        node("ReduceMax", &["x"], "y", graph);
        bytes(2, b"largest", graph);
        value(11, "x", &[None, Some(columns)], graph);
        value(12, "y", &[None, Some(1)], graph);
    })
}

/// The same with `padding` bytes of weights: a large file whose answers are known. The weights are multiplied with the
/// input, so that they cannot be folded away when the model is loaded, and then with zero.
pub fn add_heavy(k: f32, padding: usize) -> Vec<u8> {
    let columns = padding / 16;
    // Different in every model, so that no two files share a digest.
    let weights: Vec<f32> = (0..columns * 4).map(|index| k + (index % 1000) as f32).collect();
    model(|graph| {
        node("MatMul", &["x", "w"], "product", graph);
        node("ReduceMax", &["product"], "largest", graph);
        node("Mul", &["largest", "zero"], "nothing", graph);
        node("Add", &["x", "nothing"], "x2", graph);
        node("Add", &["x2", "k"], "y", graph);
        bytes(2, b"heavy", graph);
        floats("k", &[1], &[k], graph);
        floats("zero", &[1], &[0.0], graph);
        floats("w", &[4, columns as u64], &weights, graph);
        value(11, "x", &[None, Some(4)], graph);
        value(12, "y", &[None, Some(4)], graph);
    })
}

/// A chain of `rounds` additions: slow enough to be sent to a compute thread when `rounds` is large.
pub fn slow(rounds: usize) -> Vec<u8> {
    model(|graph| {
        let mut last = "x".to_owned();
        for round in 0..rounds {
            let next = if round + 1 == rounds { "y".to_owned() } else { format!("t{round}") };
            node("Erf", &[&last], &next, graph);
            last = next;
        }
        bytes(2, b"slow", graph);
        value(11, "x", &[None, Some(4)], graph);
        value(12, "y", &[None, Some(4)], graph);
    })
}
