"""Small ONNX models, made with `onnx.helper`, each with the one property that a test is about."""

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

OPSET = 19
IR_VERSION = 9


def build(nodes, inputs, outputs, *, initializers=(), functions=(), opsets=(), opset: int = OPSET) -> bytes:
    """Serialised model; not run through the checker, since some are wrong on purpose."""
    return assemble(
        nodes, inputs, outputs, initializers=initializers, functions=functions, opsets=opsets, opset=opset
    ).SerializeToString()


def assemble(nodes, inputs, outputs, *, initializers=(), functions=(), opsets=(), opset: int = OPSET):
    graph = helper.make_graph(list(nodes), "graph", list(inputs), list(outputs), initializer=list(initializers))
    imports = [helper.make_opsetid("", opset), *opsets]
    return helper.make_model(graph, opset_imports=imports, ir_version=IR_VERSION, functions=list(functions))


def value(name: str, kind: int = TensorProto.FLOAT, shape=(None, 4)):
    """A graph input or output; `shape=None` leaves the rank open."""
    return helper.make_tensor_value_info(name, kind, None if shape is None else list(shape))


def constant(name: str, array) -> TensorProto:
    return numpy_helper.from_array(np.asarray(array), name)


def identity(kind: int, shape=None) -> bytes:
    """Y = X of any shape."""
    return build([helper.make_node("Identity", ["X"], ["Y"])], [value("X", kind, shape)], [value("Y", kind, shape)])


def adds(amount: float) -> bytes:
    """Y[n,4] = X[n,4] + amount: tells by its answer which model gave it."""
    return build(
        [helper.make_node("Add", ["X", "amount"], ["Y"])],
        [value("X")],
        [value("Y")],
        initializers=[constant("amount", np.float32(amount))],
    )


def two_answers(amount: float, padding: int = 0) -> bytes:
    """first = X + amount, second = X * amount; `padding` floats of dead weight make the file larger."""
    weights = [constant("amount", np.float32(amount))]
    nodes = [
        helper.make_node("Add", ["X", "amount"], ["first"]),
        helper.make_node("Mul", ["X", "amount"], ["second"]),
    ]
    outputs = [value("first"), value("second")]
    if padding:
        weights.append(constant("padding", np.full(padding, amount, dtype=np.float32)))
        nodes.append(helper.make_node("ReduceSum", ["padding"], ["third"], keepdims=1))
        outputs.append(value("third", shape=(1,)))
    return build(nodes, [value("X")], outputs, initializers=weights)


def simple() -> bytes:
    """Triton's example model: OUTPUT0 = INPUT0 + INPUT1, OUTPUT1 = INPUT0 - INPUT1, INT32 [n,16]."""
    names = ("INPUT0", "INPUT1")
    int32 = {"kind": TensorProto.INT32, "shape": (None, 16)}
    return build(
        [helper.make_node("Add", names, ["OUTPUT0"]), helper.make_node("Sub", names, ["OUTPUT1"])],
        [value(name, **int32) for name in names],
        [value(name, **int32) for name in ("OUTPUT0", "OUTPUT1")],
    )


def simple_text() -> bytes:
    """The same shape of model for text: both outputs are the inputs, swapped."""
    text = {"kind": TensorProto.STRING, "shape": (None, None)}
    return build(
        [helper.make_node("Identity", ["A"], ["B_OUT"]), helper.make_node("Identity", ["B"], ["A_OUT"])],
        [value("A", **text), value("B", **text)],
        [value("A_OUT", **text), value("B_OUT", **text)],
    )


def log() -> bytes:
    """Y = ln(X): gives NaN below zero and -Infinity at zero."""
    return build([helper.make_node("Log", ["X"], ["Y"])], [value("X", shape=(None,))], [value("Y", shape=(None,))])


def gathers() -> bytes:
    """Y = table[index]: fails while running for an index that is out of range."""
    return build(
        [helper.make_node("Gather", ["table", "index"], ["Y"])],
        [value("index", TensorProto.INT64, (None,))],
        [value("Y", shape=(None,))],
        initializers=[constant("table", np.arange(4, dtype=np.float32))],
    )


def odd_names() -> bytes:
    """Tensor names as exporters really write them."""
    name_in, name_out = "serving_default_x:0/in put", 'StatefulPartitionedCall:0 é "q"'
    return build([helper.make_node("Neg", [name_in], [name_out])], [value(name_in)], [value(name_out)])


def optional_input() -> bytes:
    """Y = X + bias, where bias is an initialiser that is also an input: it may be left out."""
    return build(
        [helper.make_node("Add", ["X", "bias"], ["Y"])],
        [value("X"), value("bias", shape=(4,))],
        [value("Y")],
        initializers=[constant("bias", np.full(4, 10, dtype=np.float32))],
    )


def no_inputs() -> bytes:
    """A constant model."""
    node = helper.make_node("Constant", [], ["Y"], value=constant("c", np.arange(4, dtype=np.float32)))
    return build([node], [], [value("Y", shape=(4,))])


def spins() -> bytes:
    """total = sum over `rounds` of a matrix product: takes as long as the caller asks for."""
    size = 64
    float32 = TensorProto.FLOAT
    body = helper.make_graph(
        [
            helper.make_node("MatMul", ["state", "matrix"], ["product"]),
            helper.make_node("Tanh", ["product"], ["state_out"]),
            helper.make_node("Identity", ["going"], ["going_out"]),
        ],
        "body",
        [
            value("round", TensorProto.INT64, ()),
            value("going", TensorProto.BOOL, ()),
            value("state", float32, (size, size)),
        ],
        [value("going_out", TensorProto.BOOL, ()), value("state_out", float32, (size, size))],
    )
    matrix = np.random.default_rng(7).normal(0, 0.3, (size, size)).astype(np.float32)
    return build(
        [
            helper.make_node("Loop", ["rounds", "yes", "start"], ["end"], body=body),
            helper.make_node("ReduceSum", ["end"], ["total"], keepdims=0),
        ],
        [value("rounds", TensorProto.INT64, ())],
        [value("total", float32, ())],
        initializers=[constant("matrix", matrix), constant("start", matrix), constant("yes", np.array(True))],
    )


# Models that must be refused.


def _external(name: str, location: str, offset: int | None = None, kind: int = TensorProto.FLOAT) -> TensorProto:
    tensor = TensorProto(name=name, data_type=kind, dims=[4], data_location=TensorProto.EXTERNAL)
    tensor.external_data.add(key="location", value=location)
    if offset is not None:
        tensor.external_data.add(key="offset", value=str(offset))
    return tensor


def external_initializer(location: str, offset: int | None = None) -> bytes:
    return build(
        [helper.make_node("Add", ["X", "outside"], ["Y"])],
        [value("X")],
        [value("Y")],
        initializers=[_external("outside", location, offset)],
    )


def external_constant() -> bytes:
    node = helper.make_node("Constant", [], ["c"], value=_external("outside", "weights.bin"))
    return build([node, helper.make_node("Add", ["X", "c"], ["Y"])], [value("X")], [value("Y")])


def external_in_subgraph() -> bytes:
    inner = helper.make_graph(
        [helper.make_node("Identity", ["outside"], ["o"])],
        "inner",
        [],
        [value("o", shape=(4,))],
        initializer=[_external("outside", "../weights.bin")],
    )
    return build(
        [helper.make_node("If", ["yes"], ["Y"], then_branch=inner, else_branch=inner)],
        [value("yes", TensorProto.BOOL, ())],
        [value("Y", shape=(4,))],
    )


def external_in_function() -> bytes:
    node = helper.make_node("Constant", [], ["c"], value=_external("outside", "/etc/hostname"))
    function = helper.make_function(
        "mine", "f", ["a"], ["b"], [node, helper.make_node("Add", ["a", "c"], ["b"])], [helper.make_opsetid("", OPSET)]
    )
    return build(
        [helper.make_node("f", ["X"], ["Y"], domain="mine")],
        [value("X")],
        [value("Y")],
        functions=[function],
        opsets=[helper.make_opsetid("mine", 1)],
    )


def external_sparse(part: str) -> bytes:
    """A sparse initialiser whose `values` or `indices` lie outside."""
    values = _external("outside", "w.bin") if part == "values" else constant("v", np.ones(4, np.float32))
    indices = (
        _external("outside_indices", "i.bin", kind=TensorProto.INT64)
        if part == "indices"
        else constant("i", np.arange(4))
    )
    model = assemble([helper.make_node("Add", ["X", values.name], ["Y"])], [value("X")], [value("Y")])
    model.graph.sparse_initializer.append(onnx.SparseTensorProto(values=values, indices=indices, dims=[4]))
    return model.SerializeToString()


def calls_itself() -> bytes:
    """A model-local function that uses itself."""
    function = helper.make_function(
        "mine",
        "f",
        ["a"],
        ["b"],
        [helper.make_node("f", ["a"], ["b"], domain="mine")],
        [helper.make_opsetid("mine", 1)],
    )
    return build(
        [helper.make_node("f", ["X"], ["Y"], domain="mine")],
        [value("X")],
        [value("Y")],
        functions=[function],
        opsets=[helper.make_opsetid("mine", 1)],
    )


def nested_ifs(levels: int) -> bytes:
    def leaf():
        node = helper.make_node("Constant", [], ["leaf"], value=constant("c", np.ones(4, np.float32)))
        return helper.make_graph([node], "leaf", [], [value("leaf", shape=(4,))])

    graph, name = leaf(), "Y"
    for level in range(levels):
        name = "Y" if level == levels - 1 else f"o{level}"
        node = helper.make_node("If", ["yes"], [name], then_branch=graph, else_branch=leaf())
        graph = helper.make_graph([node], f"level{level}", [], [value(name, shape=(4,))])
    return build(graph.node, [value("yes", TensorProto.BOOL, ())], graph.output)


def divides_by_zero() -> bytes:
    """An integer division by zero that constant folding would meet."""
    return build(
        [helper.make_node("Div", ["one", "zero"], ["d"]), helper.make_node("Add", ["X", "d"], ["Y"])],
        [value("X", TensorProto.INT32)],
        [value("Y", TensorProto.INT32)],
        initializers=[constant("one", np.ones(4, np.int32)), constant("zero", np.zeros(4, np.int32))],
    )


def unknown_operator() -> bytes:
    return build([helper.make_node("NoSuchOperator", ["X"], ["Y"])], [value("X")], [value("Y")])


def future_opset() -> bytes:
    return build([helper.make_node("Neg", ["X"], ["Y"])], [value("X")], [value("Y")], opset=9999)


def lying_initializer(dims: list[int]) -> bytes:
    """An initialiser whose dimensions do not fit its bytes."""
    tensor = TensorProto(name="w", data_type=TensorProto.FLOAT, dims=dims, raw_data=b"\0" * 16)
    return build([helper.make_node("Add", ["X", "w"], ["Y"])], [value("X")], [value("Y")], initializers=[tensor])


def cyclic_graph() -> bytes:
    nodes = [helper.make_node("Add", ["X", "b"], ["a"]), helper.make_node("Neg", ["a"], ["b"])]
    return build(nodes, [value("X")], [value("a")])


def sequence_output() -> bytes:
    sequence = helper.make_tensor_sequence_value_info("Y", TensorProto.FLOAT, None)
    return build([helper.make_node("SequenceConstruct", ["X"], ["Y"])], [value("X")], [sequence])


def optional_output() -> bytes:
    kind = helper.make_optional_type_proto(helper.make_tensor_type_proto(TensorProto.FLOAT, [None, 4]))
    return build([helper.make_node("Optional", ["X"], ["Y"])], [value("X")], [helper.make_value_info("Y", kind)])


def float8_output() -> bytes:
    node = helper.make_node("Cast", ["X"], ["Y"], to=TensorProto.FLOAT8E4M3FN)
    return build([node], [value("X")], [value("Y", TensorProto.FLOAT8E4M3FN)])
