//! The rewrite of ZipMap outputs: what is replaced, what stays byte for byte, when nothing is done.

use super::super::*;
use super::build::*;
use super::look;

/// An output that gives dictionaries.
fn probabilities() -> Proto {
    value("p", dictionaries(INT64)).text(3, "kept")
}

fn zipmap(labels: Proto) -> Proto {
    node("ZipMap", &["scores"], &["p"]).text(3, "zip").domain("ai.onnx.ml").attribute(labels)
}

fn integers() -> Proto {
    attribute("classlabels_int64s").int(8, 3).int(8, -1).bytes(8, &[7]).int(20, 7)
}

fn classifier(zipmap: Proto) -> Proto {
    graph()
        .node(node("LinearClassifier", &["x"], &["label", "scores"]).domain("ai.onnx.ml"))
        .node(zipmap)
        .text(2, "graph")
        .initializer(weight("w"))
        .input(value("x", tensor_type(FLOAT, &[Size::Named("N"), Size::Fixed(4)])))
        .output(value("label", tensor_type(INT64, &[Size::Unknown])))
}

/// The rewritten classifier as it should be.
fn rewritten() -> Proto {
    graph()
        .node(node("LinearClassifier", &["x"], &["label", "scores"]).domain("ai.onnx.ml"))
        .node(Proto::default().text(1, "scores").text(2, "p").text(3, "zip").text(4, "Identity"))
        .text(2, "graph")
        .initializer(weight("w"))
        .input(value("x", tensor_type(FLOAT, &[Size::Named("N"), Size::Fixed(4)])))
        .output(value("label", tensor_type(INT64, &[Size::Unknown])))
        .output(
            Proto::default()
                .text(1, "p")
                .text(3, "kept")
                .message(2, tensor_type(FLOAT, &[Size::Unknown, Size::Fixed(3)])),
        )
}

fn check_rewrite(
    case: &str,
    original: Proto,
    expected: Proto,
    labels: ClassLabels,
) -> Result<(), InspectError> {
    let found = look(original)?;
    assert_eq!(found.class_labels, [("p".to_owned(), labels)], "{case}");
    let shape = Some(vec![Dim::Unknown, Dim::Fixed(3)]);
    let output = ValueInfo { name: "p".to_owned(), kind: ValueKind::Tensor(1), shape };
    assert_eq!(found.outputs.last(), Some(&output), "{case}");
    assert_eq!(found.rewritten, Some(expected.clone().finish()), "{case}");
    // The result declares what was announced, and there is nothing left to do.
    let again = look(expected)?;
    assert_eq!((again.rewritten, again.inputs, again.outputs), (None, found.inputs, found.outputs), "{case}");
    Ok(())
}

/// Nothing is rewritten, and so the dictionaries are refused.
fn check_left_alone(case: &str, model: Proto) {
    let error = look(model).err();
    assert!(matches!(error, Some(InspectError::UnsupportedValue { .. })), "{case}: {error:?}");
}

#[test]
fn a_served_zipmap_becomes_an_identity() -> Result<(), InspectError> {
    let tail = |model: Proto| model.entry(14, "key", "value").bytes(999, b"unknown");
    let original = |labels| tail(model().graph(classifier(zipmap(labels)).output(probabilities())));
    let expected = || tail(model().graph(rewritten()));
    check_rewrite("integers", original(integers()), expected(), ClassLabels::Int64(vec![3, -1, 7]))?;
    let texts = attribute("classlabels_strings").text(9, "a").text(9, "").text(9, "ü");
    let labels = ["a", "", "ü"].map(str::to_owned).to_vec();
    check_rewrite("strings", original(texts), expected(), ClassLabels::Text(labels))
}

#[test]
fn what_the_graph_says_about_the_value_is_changed_too() -> Result<(), InspectError> {
    let with = |graph: Proto, declared: Proto| model().graph(graph.message(13, declared));
    let original = with(classifier(zipmap(integers())).output(probabilities()), probabilities());
    let retyped = value("p", tensor_type(FLOAT, &[Size::Unknown, Size::Fixed(3)]));
    let found = look(original)?;
    let declared = Proto::default()
        .text(1, "p")
        .text(3, "kept")
        .message(2, tensor_type(FLOAT, &[Size::Unknown, Size::Fixed(3)]));
    assert_eq!(found.rewritten, Some(with(rewritten(), declared).finish()));
    assert_eq!(look(model().graph(classifier(zipmap(integers())).output(retyped)))?.class_labels.len(), 1);
    Ok(())
}

#[test]
fn the_operators_of_onnx_are_imported_if_they_were_not() -> Result<(), InspectError> {
    for (ir_version, version) in [(3, 8), (4, 9), (5, 10), (6, 11), (7, 13), (10, 13)] {
        let head = Proto::default().int(1, ir_version).opset("ai.onnx.ml", 1);
        let original = head.clone().graph(classifier(zipmap(integers())).output(probabilities()));
        let expected = head.graph(rewritten()).opset("", version);
        assert_eq!(look(original)?.rewritten, Some(expected.finish()), "IR version {ir_version}");
    }
    let other_name = Proto::default().int(1, 8).opset("ai.onnx", 15);
    let original = other_name.clone().graph(classifier(zipmap(integers())).output(probabilities()));
    assert_eq!(look(original)?.rewritten, Some(other_name.graph(rewritten()).finish()));
    Ok(())
}

#[test]
fn several_zipmaps_are_rewritten() -> Result<(), InspectError> {
    let second = node("ZipMap", &["scores"], &["q"]).domain("ai.onnx.ml").attribute(integers());
    let graph = classifier(zipmap(integers()))
        .node(second)
        .output(probabilities())
        .output(value("q", dictionaries(INT64)));
    let found = look(model().graph(graph))?;
    let names: Vec<_> = found.class_labels.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(names, ["p", "q"]);
    let again = inspect(&found.rewritten.unwrap_or_default(), &InspectLimits::default())?;
    assert_eq!(again.outputs, found.outputs);
    Ok(())
}

#[test]
fn other_dictionaries_are_left_alone() {
    let served = |graph: Proto| model().graph(graph.output(probabilities()));
    let used = node("SequenceLength", &["p"], &["n"]);
    let both = zipmap(integers()).attribute(attribute("classlabels_strings").text(9, "a"));
    let cases = [
        ("no ZipMap", served(graph())),
        ("no labels", served(classifier(zipmap(attribute("other"))))),
        ("both kinds of labels", served(classifier(both))),
        ("another domain", served(classifier(zipmap(integers()).domain("other")))),
        ("used inside as well", served(classifier(zipmap(integers())).node(used))),
        ("in a subgraph", served(graph().node(branch(graph().node(zipmap(integers())))))),
        (
            "a function of that name",
            served(classifier(zipmap(integers())))
                .function(Proto::default().text(1, "ZipMap").text(10, "ai.onnx.ml")),
        ),
    ];
    for (case, model) in cases {
        check_left_alone(case, model);
    }
    let twice = served(classifier(zipmap(integers())).node(zipmap(integers())));
    assert!(matches!(look(twice).err(), Some(InspectError::Malformed { .. })));
}

/// Regression: the graph's length, written with more bytes than needed, becomes shorter in the rewrite, and a name moves
/// to where ONNX Runtime looks for the mark of its own format.
#[test]
fn a_rewrite_does_not_make_another_format() {
    let name = format!("RTM{}", "_".repeat(usize::from(b'O') - 3));
    let content = Proto::default().text(2, &name).bytes(5, &weight("w").finish());
    let content = content.node(zipmap(integers())).output(probabilities()).finish();
    let [low, high] = [content.len() as u8 | 0x80, (content.len() >> 7) as u8 | 0x80];
    let model =
        [&[0x3a, low, high, 0x00][..], &content, &Proto::default().int(1, 8).opset("", 17).finish()].concat();
    let expected = InspectError::WrongFormat { what: "a model in ONNX Runtime's own format (.ort)" };
    assert_eq!(inspect(&model, &InspectLimits::default()).err(), Some(expected));
}

#[test]
fn labels_have_a_limit() {
    let limits = InspectLimits { labels: 2, ..InspectLimits::default() };
    let model = model().graph(classifier(zipmap(integers())).output(probabilities())).finish();
    let expected = InspectError::TooMany { what: "class labels", limit: 2 };
    assert_eq!(inspect(&model, &limits).err(), Some(expected));
}
