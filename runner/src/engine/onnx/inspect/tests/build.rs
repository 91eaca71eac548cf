//! A tiny writer of ONNX messages, for tests. It writes what it is told, valid or not.
//!
//! One type stands for every message: the method's name says which field is written, the caller knows of what.

use super::super::super::wire::Writer;

pub(super) const FLOAT: i64 = 1;
pub(super) const INT64: i64 = 7;
pub(super) const STRING: i64 = 8;

/// A message under construction.
#[derive(Debug, Clone, Default)]
pub(super) struct Proto(Writer);

/// `ModelProto` of IR version 8 with ONNX's operators, without a graph.
pub(super) fn model() -> Proto {
    Proto::default().int(1, 8).text(2, "baton-tests").opset("", 17)
}

/// A model that is nothing but this graph, with input `x` and output `y`.
pub(super) fn served(graph: Proto) -> Proto {
    let graph = graph.input(value("x", tensor_type(FLOAT, &[]))).output(value("y", tensor_type(FLOAT, &[])));
    model().graph(graph)
}

pub(super) fn graph() -> Proto {
    Proto::default()
}

pub(super) fn node(operator: &str, inputs: &[&str], outputs: &[&str]) -> Proto {
    let node = inputs.iter().fold(Proto::default(), |node, input| node.text(1, input));
    outputs.iter().fold(node, |node, output| node.text(2, output)).text(4, operator)
}

/// A node that calls function `name` of domain `own`.
pub(super) fn call(name: &str) -> Proto {
    node(name, &["x"], &["y"]).domain("own")
}

/// An `If` with this subgraph.
pub(super) fn branch(subgraph: Proto) -> Proto {
    node("If", &["c"], &["y"]).attribute(attribute("then_branch").message(6, subgraph))
}

/// A `Constant` with this tensor.
pub(super) fn constant(tensor: Proto) -> Proto {
    node("Constant", &[], &["c"]).attribute(attribute("value").message(5, tensor))
}

pub(super) fn attribute(name: &str) -> Proto {
    Proto::default().text(1, name)
}

/// A function of domain `own`.
pub(super) fn function(name: &str) -> Proto {
    Proto::default().text(1, name).text(10, "own")
}

/// A tensor without data.
pub(super) fn tensor(name: &str, element_type: i64, dims: &[i64]) -> Proto {
    dims.iter().fold(Proto::default(), |tensor, dim| tensor.int(1, *dim)).int(2, element_type).text(8, name)
}

/// A float tensor of shape `[1]` with its data.
pub(super) fn weight(name: &str) -> Proto {
    tensor(name, FLOAT, &[1]).bytes(9, &[0; 4])
}

/// A weight that is said to lie in another file.
pub(super) fn external(name: &str) -> Proto {
    tensor(name, FLOAT, &[1]).entry(13, "location", "weights.bin").int(14, 1)
}

pub(super) fn sparse(values: Proto, indices: Proto, dims: &[i64]) -> Proto {
    dims.iter()
        .fold(Proto::default().message(1, values).message(2, indices), |sparse, dim| sparse.int(3, *dim))
}

/// One index.
pub(super) fn indices() -> Proto {
    tensor("indices", INT64, &[1]).int(7, 0)
}

pub(super) fn value(name: &str, type_: Proto) -> Proto {
    Proto::default().text(1, name).message(2, type_)
}

pub(super) enum Size<'a> {
    Fixed(i64),
    Named(&'a str),
    Unknown,
}

pub(super) fn tensor_type(element_type: i64, dims: &[Size<'_>]) -> Proto {
    let shape = dims.iter().fold(Proto::default(), |shape, dim| {
        let dim = match dim {
            Size::Fixed(size) => Proto::default().int(1, *size),
            Size::Named(name) => Proto::default().text(2, name),
            Size::Unknown => Proto::default(),
        };
        shape.message(1, dim)
    });
    Proto::default().message(1, Proto::default().int(1, element_type).message(2, shape))
}

/// A sequence of maps from `key` to float, as ZipMap gives.
pub(super) fn dictionaries(key: i64) -> Proto {
    let map = Proto::default().int(1, key).message(2, tensor_type(FLOAT, &[]));
    Proto::default().message(4, Proto::default().message(1, Proto::default().message(5, map)))
}

impl Proto {
    pub(super) fn int(self, number: u32, value: i64) -> Self {
        Self(self.0.int(number, value))
    }

    pub(super) fn bytes(self, number: u32, bytes: &[u8]) -> Self {
        Self(self.0.bytes(number, bytes))
    }

    pub(super) fn text(self, number: u32, text: &str) -> Self {
        self.bytes(number, text.as_bytes())
    }

    pub(super) fn message(self, number: u32, message: Proto) -> Self {
        Self(self.0.message(number, message.0))
    }

    /// A `StringStringEntryProto`.
    pub(super) fn entry(self, number: u32, key: &str, value: &str) -> Self {
        self.message(number, Proto::default().text(1, key).text(2, value))
    }

    pub(super) fn finish(self) -> Vec<u8> {
        self.0.finish()
    }

    // Of a model.

    pub(super) fn opset(self, domain: &str, version: i64) -> Self {
        self.message(8, Proto::default().text(1, domain).int(2, version))
    }

    pub(super) fn graph(self, graph: Proto) -> Self {
        self.message(7, graph)
    }

    pub(super) fn function(self, function: Proto) -> Self {
        self.message(25, function)
    }

    // Of a graph.

    pub(super) fn node(self, node: Proto) -> Self {
        self.message(1, node)
    }

    pub(super) fn initializer(self, tensor: Proto) -> Self {
        self.message(5, tensor)
    }

    pub(super) fn sparse_initializer(self, sparse: Proto) -> Self {
        self.message(15, sparse)
    }

    pub(super) fn input(self, value: Proto) -> Self {
        self.message(11, value)
    }

    pub(super) fn output(self, value: Proto) -> Self {
        self.message(12, value)
    }

    // Of a node.

    pub(super) fn domain(self, domain: &str) -> Self {
        self.text(7, domain)
    }

    pub(super) fn attribute(self, attribute: Proto) -> Self {
        self.message(5, attribute)
    }

    // Of a function.

    pub(super) fn step(self, node: Proto) -> Self {
        self.message(7, node)
    }
}
