//! One test a rule of the inspection, each over the cases that it speaks of.

mod build;
mod mutants;
mod tensors;
mod zipmap;

use build::*;

use super::*;

fn look(model: Proto) -> Result<Inspection, InspectError> {
    inspect(&model.finish(), &InspectLimits::default())
}

fn check_passes(case: &str, model: Proto) {
    assert_eq!(look(model).err(), None, "{case}");
}

fn check_error(case: &str, model: Proto, expected: InspectError) {
    assert_eq!(look(model).err(), Some(expected), "{case}");
}

fn info(name: &str, kind: ValueKind, shape: Option<Vec<Dim>>) -> ValueInfo {
    ValueInfo { name: name.to_owned(), kind, shape }
}

#[test]
fn the_signature_is_what_the_graph_declares() -> Result<(), InspectError> {
    let shape = tensor_type(
        FLOAT,
        &[Size::Named("batch"), Size::Unknown, Size::Fixed(3), Size::Fixed(-1), Size::Named("")],
    );
    let rankless = Proto::default().message(1, Proto::default().int(1, STRING));
    let found = look(
        model().opset("ai.onnx.ml", 3).graph(
            graph()
                .input(value("x", shape))
                .input(value("scalar", tensor_type(INT64, &[])))
                .output(value("text", rankless))
                .output(Proto::default().text(1, "untyped")),
        ),
    )?;
    let dims = vec![Dim::Named("batch".to_owned()), Dim::Unknown, Dim::Fixed(3), Dim::Unknown, Dim::Unknown];
    let expected = Inspection {
        ir_version: 8,
        opset: vec![(String::new(), 17), ("ai.onnx.ml".to_owned(), 3)],
        producer: "baton-tests".to_owned(),
        inputs: vec![
            info("x", ValueKind::Tensor(1), Some(dims)),
            info("scalar", ValueKind::Tensor(7), Some(vec![])),
        ],
        outputs: vec![info("text", ValueKind::Tensor(8), None), info("untyped", ValueKind::Unknown, None)],
        rewritten: None,
        class_labels: vec![],
    };
    assert_eq!(found, expected);
    Ok(())
}

#[test]
fn inputs_that_an_initialiser_fills_are_left_out() -> Result<(), InspectError> {
    let declared = |name| value(name, tensor_type(FLOAT, &[Size::Fixed(1)]));
    let graph = graph()
        .input(declared("w"))
        .input(declared("data"))
        .input(declared("s"))
        .initializer(weight("w"))
        .sparse_initializer(sparse(weight("s"), indices(), &[4]));
    for ir_version in [3, 4, 8] {
        let found = look(Proto::default().int(1, ir_version).graph(graph.clone()))?;
        let names: Vec<_> = found.inputs.iter().map(|input| input.name.as_str()).collect();
        assert_eq!(names, ["data"], "IR version {ir_version}");
    }
    Ok(())
}

#[test]
fn other_formats_are_named() {
    let zip = |name: &[u8]| [&b"PK\x03\x04"[..], &[0; 22], &[name.len() as u8, 0, 0, 0], name].concat();
    let tar = [&[b'a'; 257][..], b"ustar\x0000"].concat();
    let umlauts = format!("x{}", "ä".repeat(1023));
    let cases: &[(&[u8], &str)] = &[
        (b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR", "a PNG image"),
        (b"\xff\xd8\xff\xe0\0\x10JFIF", "a JPEG image"),
        (b"GIF89a", "a GIF image"),
        (b"\x1f\x8b\x08\0", "a gzip archive"),
        (&zip(b"arr_0.npy"), "a NumPy .npz archive"),
        (&zip(b"archive/data.pkl"), "a PyTorch file (.pt)"),
        (&zip(b"metadata.json"), "a Keras model (.keras)"),
        (&zip(b"x"), "a zip archive"),
        (b"PK\x03\x04", "a zip archive"),
        (b"\x7fELF\x02\x01\x01", "an ELF program or library"),
        (b"MZ\x90\0\x03", "a Windows program or library"),
        (b"\xcf\xfa\xed\xfe\x07", "a Mach-O program or library"),
        (b"%PDF-1.7\n", "a PDF document"),
        (b"\x89HDF\r\n\x1a\n", "an HDF5 file (as .h5 models are)"),
        (b"\x80\x04\x95\x10", "a Python pickle (as joblib and older PyTorch files are)"),
        (b"\x10\0\0\0\0\0\0\0{\"a\":{}}", "a safetensors file"),
        (b"\x1c\0\0\0TFL3", "a TensorFlow Lite model"),
        (b"\x1c\0\0\0ORTM", "a model in ONNX Runtime's own format (.ort)"),
        (b"\x08\x08\x12\x0aORTM-maker", "a model in ONNX Runtime's own format (.ort)"),
        (b"GGUF\x03\0\0\0", "a GGUF model"),
        (b"\x93NUMPY\x01\0", "a NumPy array"),
        (&tar, "a tar archive"),
        (b"<?xml version=\"1.0\"?><net/>", "an XML or HTML document"),
        ("\u{feff}<!DOCTYPE html>".as_bytes(), "an XML or HTML document"),
        (b"{\"a\": 1}", "JSON text"),
        (b"---\na: 1\n", "YAML text"),
        (b"version https://git-lfs.github.com/spec/v1\n", "a Git LFS pointer (fetch the file it stands for)"),
        (b"hello, model", "plain text"),
        (umlauts.as_bytes(), "plain text"),
        (b"\n \n", "blank text"),
        (&[0; 64], "no ONNX model"),
        (b"\xde\xad\xbe\xef", "no ONNX model"),
        (b"\x08\x07\x12\x04test", "no ONNX model (it holds no graph)"),
    ];
    for (bytes, what) in cases {
        let error = inspect(bytes, &InspectLimits::default()).err();
        assert_eq!(error, Some(InspectError::WrongFormat { what }), "{:?}", String::from_utf8_lossy(bytes));
    }
    assert_eq!(inspect(&[], &InspectLimits::default()).err(), Some(InspectError::Empty));
}

#[test]
fn a_cut_off_model_is_malformed_where_it_ends() {
    let whole =
        served(graph().initializer(weight("w")).node(branch(graph().node(constant(weight("c")))))).finish();
    // Behind the opset import begins the graph, the last field.
    let graph_at = model().finish().len();
    for length in graph_at + 1..whole.len() {
        let error = inspect(&whole[..length], &InspectLimits::default()).err();
        let here = matches!(&error, Some(InspectError::Malformed { where_: "model", offset, .. }) if *offset == graph_at);
        assert!(here, "{length}: {error:?}");
    }
    // Nothing but a graph, as an exporter may write it that begins with it.
    let bare = Proto::default().graph(graph().initializer(weight("w"))).finish();
    let error = inspect(&bare[..bare.len() - 1], &InspectLimits::default()).err();
    assert!(matches!(&error, Some(InspectError::Malformed { where_: "model", offset: 0, .. })), "{error:?}");
    // A length inside that does not fit what is around it.
    let inner = Proto::default().bytes(5, &[0x4a, 0x7f, 0x00]);
    let expected = InspectError::Malformed {
        where_: "initializer",
        offset: graph_at + 4,
        reason: "a field of 127 bytes begins where only 1 are left".to_owned(),
    };
    check_error("tensor", model().graph(inner), expected);
}

#[test]
fn a_message_given_twice_is_malformed() {
    let tensor = || weight("w");
    let fine = || served(graph());
    let types = tensor_type(FLOAT, &[]).message(1, Proto::default().int(1, INT64));
    let cases = [
        ("graph", fine().graph(graph())),
        (
            "tensor",
            served(
                graph().node(
                    node("Constant", &[], &["c"])
                        .attribute(attribute("value").message(5, tensor()).message(5, tensor())),
                ),
            ),
        ),
        (
            "subgraph",
            served(
                graph().node(
                    node("If", &[], &[])
                        .attribute(attribute("then_branch").message(6, graph()).message(6, graph())),
                ),
            ),
        ),
        (
            "values of a sparse tensor",
            served(graph().sparse_initializer(sparse(tensor(), indices(), &[4]).message(1, tensor()))),
        ),
        ("training graph", fine().message(20, Proto::default().message(2, graph()).message(2, graph()))),
        (
            "type",
            model().graph(
                graph().input(value("x", tensor_type(FLOAT, &[])).message(2, tensor_type(FLOAT, &[]))),
            ),
        ),
        ("the kind of type", model().graph(graph().input(value("x", types)))),
    ];
    for (what, model) in cases {
        let error = look(model).err();
        let expected = format!("{what} is given twice");
        let fits = matches!(&error, Some(InspectError::Malformed { reason, .. }) if *reason == expected);
        assert!(fits, "{what}: {error:?}");
    }
}

#[test]
fn external_data_is_refused_wherever_it_sits() {
    let e = || external("w");
    let nested =
        |depth: usize| (0..depth).fold(graph().initializer(e()), |inner, _| graph().node(branch(inner)));
    let with = |number, message| node("Op", &[], &[]).attribute(attribute("a").message(number, message));
    let training =
        |number| served(graph()).message(20, Proto::default().message(number, graph().initializer(e())));
    let cases = [
        ("initialiser", served(graph().initializer(e()))),
        ("sparse values", served(graph().sparse_initializer(sparse(e(), indices(), &[4])))),
        ("sparse indices", served(graph().sparse_initializer(sparse(weight("v"), e(), &[4])))),
        ("Constant", served(graph().node(constant(e())))),
        ("attribute tensors", served(graph().node(with(10, e())))),
        ("attribute sparse tensor", served(graph().node(with(22, sparse(e(), indices(), &[4]))))),
        ("attribute sparse tensors", served(graph().node(with(23, sparse(weight("v"), e(), &[4]))))),
        ("subgraph", served(nested(1))),
        ("subgraph in a list", served(graph().node(with(11, graph().initializer(e()))))),
        ("deep subgraph", served(nested(8))),
        (
            "sparse in a subgraph",
            served(graph().node(branch(graph().sparse_initializer(sparse(e(), indices(), &[4]))))),
        ),
        ("function", served(graph()).function(function("f").step(constant(e())))),
        (
            "subgraph of a function",
            served(graph()).function(function("f").step(branch(graph().initializer(e())))),
        ),
        (
            "default of a function",
            served(graph()).function(function("f").message(11, attribute("a").message(5, e()))),
        ),
        ("training, initialisation", training(1)),
        ("training, algorithm", training(2)),
    ];
    for (place, model) in cases {
        check_error(place, model, InspectError::ExternalData { tensor: "tensor \"w\"".to_owned() });
    }
}

#[test]
fn external_data_is_refused_however_it_is_marked() {
    let cases = [
        ("flag only", weight("w").int(14, 1)),
        ("flag with bits that an enum drops", weight("w").int(14, (1 << 32) + 1)),
        ("unknown flag", weight("w").int(14, 7)),
        ("flag taken back", weight("w").int(14, 1).int(14, 0)),
        ("entry only", weight("w").entry(13, "location", "/etc/passwd")),
        ("empty entry", weight("w").bytes(13, b"")),
        ("memory marker", tensor("w", FLOAT, &[1]).entry(13, "location", "*/_ORT_MEM_ADDR_/*").int(14, 1)),
    ];
    for (case, tensor) in cases {
        let expected = InspectError::ExternalData { tensor: "tensor \"w\"".to_owned() };
        check_error(case, served(graph().initializer(tensor)), expected);
    }
    check_passes("flag of the default", served(graph().initializer(weight("w").int(14, 0))));
    let unnamed = tensor("", FLOAT, &[1]).int(14, 1);
    let expected = "the tensor of attribute \"value\" of \"Constant\"".to_owned();
    check_error(
        "unnamed",
        served(graph().node(constant(unnamed))),
        InspectError::ExternalData { tensor: expected },
    );
}

#[test]
fn subgraphs_may_be_nested_to_the_limit() {
    let nested = |depth: usize| {
        (0..depth).fold(graph(), |inner, _| graph().node(branch(inner.node(node("Neg", &[], &[])))))
    };
    check_passes("at the limit", served(nested(8)));
    check_error("beyond it", served(nested(9)), InspectError::TooDeep { limit: 8 });
    // As if the call were replaced by what it calls.
    let called = |outer, inner: usize| {
        let calls = (0..outer).fold(graph().node(call("f")), |inner, _| graph().node(branch(inner)));
        let steps =
            (1..inner).fold(graph().node(node("Neg", &[], &[])), |inner, _| graph().node(branch(inner)));
        served(calls).function(function("f").step(branch(steps)))
    };
    check_passes("through a function, at the limit", called(4, 4));
    check_error("through a function, beyond it", called(4, 5), InspectError::TooDeep { limit: 8 });
}

#[test]
fn function_cycles_are_refused() {
    let f = |name: &str, callee: Proto| function(name).step(callee);
    let cycles = [
        ("itself", vec![f("a", call("a"))]),
        ("two", vec![f("a", call("b")), f("b", call("a"))]),
        ("in a subgraph", vec![f("a", branch(graph().node(call("a"))))]),
        ("in a default", vec![function("a").message(11, attribute("g").message(6, graph().node(call("a"))))]),
        ("of one overload", vec![f("a", call("a").text(8, "o")).text(13, "o")]),
        ("in the second of that name", vec![f("a", node("Neg", &[], &[])), f("a", call("a"))]),
    ];
    for (case, functions) in cycles {
        let model = functions.into_iter().fold(served(graph()), Proto::function);
        check_error(case, model, InspectError::FunctionCycle { function: "\"a\"".to_owned() });
    }
    let own = |domain: &str| Proto::default().text(1, "a").text(10, domain);
    let aliased = own("ai.onnx").step(node("a", &[], &[]));
    let expected = InspectError::FunctionCycle { function: "\"a\"".to_owned() };
    check_error("both names of a domain", served(graph()).function(aliased), expected);

    let fine = [
        (
            "diamond",
            vec![f("a", call("b")).step(call("c")), f("b", call("d")), f("c", call("d")), function("d")],
        ),
        ("other overload", vec![f("a", call("a").text(8, "o")), function("a").text(13, "o")]),
        ("other domain", vec![f("a", node("a", &[], &[]).domain("else"))]),
    ];
    for (case, functions) in fine {
        check_passes(case, functions.into_iter().fold(served(graph().node(call("a"))), Proto::function));
    }
}

#[test]
fn functions_may_not_grow_without_bound_when_inlined() {
    let tower =
        |height: usize, calls: usize| {
            let floor = served(graph().node(call("f0")))
                .function(function(&format!("f{height}")).step(node("Neg", &[], &[])));
            (0..height).fold(floor, |model, level| {
                let above = format!("f{}", level + 1);
                model.function(
                    (0..calls)
                        .fold(function(&format!("f{level}")), |function, _| function.step(call(&above))),
                )
            })
        };
    check_passes("chain at the limit", tower(63, 1));
    let chain = InspectError::TooMany { what: "functions that call one another in a chain", limit: 64 };
    check_error("chain", tower(64, 1), chain.clone());
    check_error("long chain", tower(5_000, 1), chain);
    check_passes("some calls", tower(12, 2));
    let nodes = InspectError::TooMany { what: "nodes once its functions are inlined", limit: 50_000 };
    check_error("doubling", tower(16, 2), nodes.clone());
    check_error("2^64 and more", tower(60, 3), nodes);
}

#[test]
fn values_that_no_protocol_carries_are_refused_with_advice() {
    let one = |number, content| Proto::default().message(number, content);
    let sequence = one(4, one(1, tensor_type(FLOAT, &[])));
    let cases = [
        (sequence, "a sequence", "SplitToSequence", "ConcatFromSequence"),
        (dictionaries(STRING), "a sequence of maps", "one tensor", "'zipmap': False"),
        (one(5, Proto::default().int(1, INT64)), "a map", "one tensor", "'zipmap': False"),
        (one(9, one(1, tensor_type(FLOAT, &[]))), "an optional", "plain tensor", "plain tensor"),
        (one(8, Proto::default().int(1, FLOAT)), "a sparse tensor", "dense", "dense"),
        (one(7, Proto::default()), "of an opaque type", "tensors", "tensors"),
        (tensor_type(14, &[]), "a tensor of complex64", "Cast", "Cast"),
        (tensor_type(17, &[]), "a tensor of float8e4m3fn", "Cast", "Cast"),
        (tensor_type(22, &[]), "a tensor of int4", "Cast", "Cast"),
    ];
    for (declared, what, input_advice, output_advice) in cases {
        let input = model().graph(graph().input(value("v", declared.clone())));
        let output = model().graph(graph().output(value("v", declared)));
        for (model, side, part) in
            [(input, "input \"v\"", input_advice), (output, "output \"v\"", output_advice)]
        {
            let error = look(model).err();
            let fits = matches!(&error, Some(InspectError::UnsupportedValue { name, kind, advice })
                if name == side && kind == what && advice.contains(part));
            assert!(fits, "{what}: {error:?}");
        }
    }
    for element_type in (1..=13).chain([16]) {
        check_passes("served", model().graph(graph().input(value("v", tensor_type(element_type, &[])))));
    }
}

#[test]
fn counts_have_limits() {
    let limits = InspectLimits {
        nodes: 2,
        tensors: 2,
        functions: 2,
        values: 2,
        labels: 2,
        ..InspectLimits::default()
    };
    let repeat = |count: usize, start: Proto, add: &dyn Fn(Proto) -> Proto| {
        (0..count).fold(start, |proto, _| add(proto))
    };
    let nodes = |count| model().graph(repeat(count, graph(), &|graph| graph.node(node("Neg", &[], &[]))));
    let tensors = |count| model().graph(repeat(count, graph(), &|graph| graph.node(constant(weight("w")))));
    let functions = |count| repeat(count, model().graph(graph()), &|model| model.function(function("f")));
    let values = |count| model().graph(repeat(count, graph(), &|graph| graph.input(Proto::default())));
    let cases: [(&str, &dyn Fn(usize) -> Proto); 4] = [
        ("nodes", &nodes),
        ("nodes", &tensors),
        ("functions, training graphs or opset imports", &functions),
        ("inputs and outputs", &values),
    ];
    for (what, model) in cases {
        assert_eq!(inspect(&model(2).finish(), &limits).err(), None, "{what}");
        assert_eq!(
            inspect(&model(3).finish(), &limits).err(),
            Some(InspectError::TooMany { what, limit: 2 }),
            "{what}"
        );
    }
    let weights = |count| model().graph(repeat(count, graph(), &|graph| graph.initializer(weight("w"))));
    let expected = InspectError::TooMany { what: "tensors", limit: 2 };
    assert_eq!(inspect(&weights(3).finish(), &limits).err(), Some(expected));
}

#[test]
fn texts_quote_what_the_model_says() {
    let long = "n\u{1b}[31m".repeat(40);
    let error = look(served(graph().initializer(external(&long)))).err().map(|error| error.to_string());
    let text = error.unwrap_or_default();
    assert!(text.starts_with("cannot load tensor \"n\\u{1b}[31m"), "{text}");
    assert!(text.len() < 300 && !text.contains('\u{1b}'), "{text}");
    assert!(!text.ends_with('.') && !text.contains("weights.bin"), "{text}");
}
